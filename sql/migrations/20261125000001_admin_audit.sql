-- migrate:up

-- Who changed what, in the same transaction as the change; never a secret.
CREATE TABLE admin_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    tenant_id uuid,
    key_id uuid,
    old jsonb,
    new jsonb
);

CREATE INDEX admin_audit_at ON admin_audit (at);

-- migrate:down

DROP TABLE admin_audit;
