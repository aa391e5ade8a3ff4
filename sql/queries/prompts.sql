-- name: store(request_ids, directions, indexes, flags, tenant_ids, key_ids, moments, expiries, vaults, boxes, most)$
-- metering.prompts: sealed pieces from Caddy's spool; how many were more than a tenant may have.
SELECT store_prompts(
    :request_ids, :directions, :indexes, :flags, :tenant_ids, :key_ids, :moments, :expiries, :vaults, :boxes, :most
);

-- name: expire()$
-- metering.prompts: what has expired; how many pieces went.
SELECT expire_prompts();
