-- name: store(request_ids, directions, indexes, flags, tenant_ids, key_ids, moments, expiries, vaults, boxes, most)$
-- metering.prompts: sealed pieces from Caddy's spool; how many were more than a tenant may have.
SELECT store_prompts(
    :request_ids, :directions, :indexes, :flags, :tenant_ids, :key_ids, :moments, :expiries, :vaults, :boxes, :most
);

-- name: expire()$
-- metering.prompts: what has expired; how many pieces went.
SELECT expire_prompts();

-- name: list_prompts(tenant, key, since, after, most, overhead)
-- prompts list: what shows of each request without opening it; a page behind a request, or the newest.
WITH kept AS (
    SELECT
        request_id, tenant_id, key_id, min(at) AS at, min(expires_at) AS expires_at,
        bit_or(flags) AS ends, bool_or(box IS NULL) AS is_beyond,
        coalesce(sum(octet_length(box) - :overhead::int - CASE direction WHEN 2 THEN 4 ELSE 0 END), 0)::bigint AS bytes,
        count(*) FILTER (WHERE flags & 1 = 1) = CASE max(direction) WHEN 2 THEN 1 ELSE 2 END
        AND count(*) = sum(index + 1) FILTER (WHERE flags & 1 = 1) AS is_whole
    FROM prompt_pieces
    WHERE expires_at > now() AND at >= :since
        AND (:tenant::uuid IS NULL OR tenant_id = :tenant) AND (:key::uuid IS NULL OR key_id = :key)
        AND (:after::uuid IS NULL OR request_id < :after)
    GROUP BY request_id, tenant_id, key_id
    ORDER BY request_id DESC
    LIMIT :most
)
SELECT
    k.*, t.name AS tenant, o.name AS key,
    (SELECT s.lookup FROM secrets AS s WHERE s.key_id = k.key_id ORDER BY s.created_at DESC LIMIT 1) AS prefix,
    (SELECT l.model FROM ledger AS l WHERE l.request_id = k.request_id AND l.entry = 0) AS model
FROM kept AS k LEFT JOIN tenants AS t ON t.id = k.tenant_id LEFT JOIN keys AS o ON o.id = k.key_id
ORDER BY k.request_id DESC;

-- name: pieces(request)
-- prompts show: the pieces of a request, in order.
SELECT
    p.request_id, p.direction, p.index, p.flags, p.tenant_id, p.key_id, p.at, p.expires_at, p.vault, p.box,
    t.name AS tenant
FROM prompt_pieces AS p LEFT JOIN tenants AS t ON t.id = p.tenant_id
WHERE p.request_id = :request AND p.expires_at > now()
ORDER BY p.direction, p.index;

-- name: erase(tenant)$
-- prompts erase: all of a tenant; of how many requests.
SELECT erase_prompts(:tenant);
