-- migrate:up

-- What the requests of a tenant or a key may ask of the machines that all share, as whole numbers by name; a
-- name that is not there is the tenant's for a key, and the safe default for a tenant.
ALTER TABLE tenants
    ADD COLUMN policy jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(policy) = 'object');

ALTER TABLE keys
    ADD COLUMN policy jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(policy) = 'object');

GRANT UPDATE (policy) ON tenants, keys TO gateway_admin;

-- migrate:down

ALTER TABLE tenants DROP COLUMN policy;

ALTER TABLE keys DROP COLUMN policy;
