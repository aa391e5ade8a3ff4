-- name: insert_audit(actor, action, tenant, key, old, new)!
-- Every command that changes something, in the transaction of the change.
INSERT INTO admin_audit (actor, action, tenant_id, key_id, old, new)
VALUES (:actor, :action, :tenant, :key, :old::jsonb, :new::jsonb);

-- name: insert_tenant(tenant, name, timezone, rpm, tpm, concurrency, day, month, total)!
-- create-tenant.
INSERT INTO tenants (
    id, name, timezone,
    requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
)
VALUES (:tenant, :name, :timezone, :rpm, :tpm, :concurrency, :day, :month, :total);

-- name: list_tenants()
-- list-tenants.
SELECT t.id, t.name, t.state, t.timezone, t.created_at, count(k.id) FILTER (WHERE k.state <> 'revoked') AS keys
FROM tenants AS t LEFT JOIN keys AS k ON k.tenant_id = t.id
GROUP BY t.id
ORDER BY t.name;

-- name: find_tenant(name)^
-- Every command that takes --tenant.
SELECT
    id, name, state, timezone,
    requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
FROM tenants
WHERE name = :name
FOR UPDATE;

-- name: set_tenant_limits(tenant, timezone, rpm, tpm, concurrency, day, month, total)!
-- set-limits --tenant.
UPDATE tenants SET
    timezone = :timezone, requests_per_minute = :rpm, tokens_per_minute = :tpm, concurrency = :concurrency,
    tokens_per_day = :day, tokens_per_month = :month, tokens_total = :total, version = version + 1
WHERE id = :tenant;

-- name: set_tenant_state(tenant, state)!
-- disable-tenant, enable-tenant.
UPDATE tenants SET state = :state, version = version + 1 WHERE id = :tenant AND state <> :state;

-- name: insert_key(key, tenant, name, models, cidrs, expires_at, max_output, rpm, tpm, concurrency, day, month, total)!
-- create-key.
INSERT INTO keys (
    id, tenant_id, name, models, cidrs, expires_at, max_output,
    requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
)
VALUES (
    :key, :tenant, :name, :models, :cidrs::text[]::cidr[], :expires_at, :max_output,
    :rpm, :tpm, :concurrency, :day, :month, :total
);

-- name: insert_secret(lookup, key, tag, pepper_id, hash)!
-- create-key, rotate-key.
INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash) VALUES (:lookup, :key, :tag, :pepper_id, :hash);

-- name: expire_secrets(key, at, spared)!
-- rotate-key: the older secrets of a key end when the grace period does.
UPDATE secrets SET expires_at = least(expires_at, :at) WHERE key_id = :key AND lookup <> :spared;

-- name: list_keys(tenant)
-- list-keys: a key once per secret.
SELECT
    s.lookup AS prefix, k.id, k.name, k.state, k.models, k.cidrs::text[] AS cidrs, k.max_output,
    least(k.expires_at, s.expires_at) AS expires_at, k.created_at
FROM keys AS k JOIN secrets AS s ON s.key_id = k.id
WHERE k.tenant_id = :tenant
ORDER BY k.created_at, s.created_at;

-- name: find_key(prefix)^
-- Every command that takes --prefix.
SELECT
    k.id, k.name, k.state, k.tenant_id, t.name AS tenant, t.timezone,
    k.models, k.cidrs::text[] AS cidrs, k.expires_at, k.max_output,
    k.requests_per_minute, k.tokens_per_minute, k.concurrency,
    k.tokens_per_day, k.tokens_per_month, k.tokens_total
FROM secrets AS s JOIN keys AS k ON k.id = s.key_id JOIN tenants AS t ON t.id = k.tenant_id
WHERE s.lookup = :prefix
FOR UPDATE OF k;

-- name: set_key_limits(key, models, cidrs, expires_at, max_output, rpm, tpm, concurrency, day, month, total)!
-- set-limits --prefix.
UPDATE keys SET
    models = :models, cidrs = :cidrs::text[]::cidr[], expires_at = :expires_at, max_output = :max_output,
    requests_per_minute = :rpm, tokens_per_minute = :tpm, concurrency = :concurrency,
    tokens_per_day = :day, tokens_per_month = :month, tokens_total = :total, version = version + 1
WHERE id = :key;

-- name: set_key_state(key, state)!
-- revoke-key (for good, with all of the key's secrets), disable-key, enable-key.
UPDATE keys SET state = :state, version = version + 1 WHERE id = :key AND state <> 'revoked' AND state <> :state;

-- name: touch_key(key)!
-- rotate-key: what a process remembers of the key's secrets is old.
UPDATE keys SET version = version + 1 WHERE id = :key;

-- name: retire_node(node)$
-- node retire: its journal never comes back.
UPDATE nodes SET retired_at = now() WHERE node = :node AND retired_at IS NULL RETURNING node;

-- name: list_nodes()
-- node list.
SELECT node, boot, eof_at, retired_at, created_at FROM nodes ORDER BY created_at;

-- name: usage(tenant, key, since)
-- usage: what was billed, per key; a request counts when a backend was asked.
SELECT
    t.name AS tenant, min(s.lookup) AS key, k.name,
    coalesce(l.requests, 0)::bigint AS requests,
    coalesce(l.input_tokens, 0)::bigint AS input_tokens,
    coalesce(l.output_tokens, 0)::bigint AS output_tokens
FROM keys AS k
JOIN tenants AS t ON t.id = k.tenant_id
JOIN secrets AS s ON s.key_id = k.id
LEFT JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE entry = 0 AND backend IS NOT NULL) AS requests,
        sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens
    FROM ledger
    WHERE tenant_id = t.id AND key_id = k.id
        AND request_id >= coalesce(uuid7_floor(:since::timestamptz), '00000000-0000-0000-0000-000000000000'::uuid)
) AS l ON true
WHERE (:tenant::text IS NULL OR t.name = :tenant)
    AND (:key::text IS NULL OR k.id = (SELECT key_id FROM secrets WHERE lookup = :key))
GROUP BY t.name, k.id, k.name, l.requests, l.input_tokens, l.output_tokens
ORDER BY t.name, k.created_at;
