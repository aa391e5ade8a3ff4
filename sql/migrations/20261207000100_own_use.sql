-- migrate:up

-- A key's holder reads what the key has used, from authz.
GRANT SELECT ON usage_daily TO gateway_authz;

-- migrate:down

REVOKE SELECT ON usage_daily FROM gateway_authz;
