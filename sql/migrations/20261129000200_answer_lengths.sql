-- migrate:up

-- Without a budget a request holds what is likely: authz reads how long a tenant's answers have been.
ALTER TABLE learned_figures
    ADD COLUMN answer_tokens double precision NOT NULL DEFAULT 0,
    ADD COLUMN generations double precision NOT NULL DEFAULT 0;

GRANT SELECT ON learned_figures TO gateway_authz;

-- migrate:down

REVOKE SELECT ON learned_figures FROM gateway_authz;

ALTER TABLE learned_figures
    DROP COLUMN answer_tokens,
    DROP COLUMN generations;
