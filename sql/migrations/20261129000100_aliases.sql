-- migrate:up

-- Names by which clients ask for models: of one tenant, or of all (tenant_id null).
CREATE TABLE aliases (
    tenant_id uuid REFERENCES tenants (id),
    pattern text COLLATE "C" NOT NULL CHECK (pattern <> '' AND strpos(rtrim(pattern, '*'), '*') = 0),
    model text NOT NULL CHECK (model <> ''),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (tenant_id, pattern)
);

COMMENT ON TABLE aliases IS 'Names by which clients ask for models.';
COMMENT ON COLUMN aliases.tenant_id IS 'Whose requests it is for; null is every tenant.';
COMMENT ON COLUMN aliases.pattern IS 'A name, or the beginning of names and a star.';
COMMENT ON COLUMN aliases.model IS 'The model that runs.';

ALTER TABLE ledger ADD COLUMN model_asked text;

ALTER TABLE open_requests ADD COLUMN model_asked text;

COMMENT ON COLUMN ledger.model_asked IS 'What the client called the model, where that was an alias of it.';
COMMENT ON COLUMN open_requests.model_asked IS 'Likewise.';

GRANT SELECT ON aliases TO gateway_authz;

GRANT SELECT, INSERT, DELETE, UPDATE (model) ON aliases TO gateway_admin;

-- migrate:down

ALTER TABLE open_requests DROP COLUMN model_asked;

ALTER TABLE ledger DROP COLUMN model_asked;

DROP TABLE aliases;
