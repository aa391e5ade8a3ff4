-- name: insert_audit(actor, action, tenant, key, old, new)!
-- Every command that changes something, in the transaction of the change.
INSERT INTO admin_audit (actor, action, tenant_id, key_id, old, new)
VALUES (:actor, :action, :tenant, :key, :old::jsonb, :new::jsonb);

-- name: insert_tenant(tenant, name, timezone, policy, rpm, tpm, concurrency, day, month, total)!
-- create-tenant.
INSERT INTO tenants (
    id, name, timezone, policy,
    requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
)
VALUES (:tenant, :name, :timezone, :policy::jsonb, :rpm, :tpm, :concurrency, :day, :month, :total);

-- name: list_tenants(state, beginning, after, count)
-- list-tenants: a page; without a count all.
SELECT t.id, t.name, t.state, t.timezone, t.created_at, count(k.id) FILTER (WHERE k.state <> 'revoked') AS keys
FROM tenants AS t LEFT JOIN keys AS k ON k.tenant_id = t.id
WHERE t.name > :after AND starts_with(t.name, :beginning::text) AND (:state::text IS NULL OR t.state = :state)
GROUP BY t.id
ORDER BY t.name
LIMIT :count::bigint;

-- name: find_tenant(name)^
-- Every command that takes --tenant.
SELECT
    id, name, state, timezone, policy, erased_at,
    requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
FROM tenants
WHERE name = :name
FOR UPDATE;

-- name: set_tenant_limits(tenant, timezone, policy, rpm, tpm, concurrency, day, month, total)!
-- set-limits --tenant.
UPDATE tenants SET
    timezone = :timezone, policy = :policy::jsonb,
    requests_per_minute = :rpm, tokens_per_minute = :tpm, concurrency = :concurrency,
    tokens_per_day = :day, tokens_per_month = :month, tokens_total = :total, version = version + 1
WHERE id = :tenant;

-- name: set_tenant_state(tenant, state)!
-- disable-tenant, enable-tenant.
UPDATE tenants SET state = :state, version = version + 1 WHERE id = :tenant AND state <> :state;

-- name: erase_tenant(tenant, actor)^
-- tenant erase: a function with the owner's rights, as no command may change the audit.
SELECT name, prompts, end_users, addresses, audit_rows, kept_rows FROM erase_tenant(:tenant, :actor);

-- name: insert_key(key, tenant, name, models, cidrs, expires_at, max_output, log_prompts_s, policy, rpm, tpm, concurrency, day, month, total)!
-- create-key.
INSERT INTO keys (
    id, tenant_id, name, models, cidrs, expires_at, max_output, log_prompts_s, policy,
    requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
)
VALUES (
    :key, :tenant, :name, :models, :cidrs::text[]::cidr[], :expires_at, :max_output, :log_prompts_s, :policy::jsonb,
    :rpm, :tpm, :concurrency, :day, :month, :total
);

-- name: insert_secret(lookup, key, tag, pepper_id, hash, public_key)!
-- create-key, rotate-key.
INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash, public_key)
VALUES (:lookup, :key, :tag, :pepper_id, :hash, :public_key);

-- name: expire_secrets(key, at, spared)!
-- rotate-key: the older secrets of a key end when the grace period does.
UPDATE secrets SET expires_at = least(expires_at, :at) WHERE key_id = :key AND lookup <> :spared;

-- name: end_secret(lookup, at)!
-- revoke-secret.
UPDATE secrets SET expires_at = :at WHERE lookup = :lookup;

-- name: secrets_of(key, at, named)
-- rotate-key, revoke-secret: the secrets of a key that work, at a moment or now, and those named.
SELECT lookup, expires_at
FROM secrets
WHERE key_id = :key
    AND (expires_at IS NULL OR expires_at > coalesce(:at::timestamptz, now()) OR lookup = ANY(:named::text[]))
ORDER BY created_at, lookup;

-- name: is_tenant(name)$
-- list-keys: an empty list and no tenant are two things.
SELECT EXISTS (SELECT FROM tenants WHERE name = :name);

-- name: list_keys(tenant, state, beginning, after, count)
-- list-keys: a page of a tenant, or of all, behind a secret, or all; a key once per secret. Without a state: neither
-- revoked keys nor secrets that a rotation has ended.
SELECT
    s.lookup AS prefix, t.name AS tenant, k.id, k.name, k.state, k.models, k.cidrs::text[] AS cidrs, k.max_output,
    k.log_prompts_s, coalesce((k.policy ->> 'in_path')::int, 0) = 1 AS in_path,
    least(k.expires_at, s.expires_at) AS expires_at, s.public_key, k.created_at
FROM tenants AS t JOIN keys AS k ON k.tenant_id = t.id JOIN secrets AS s ON s.key_id = k.id
WHERE (:tenant::text IS NULL OR t.name = :tenant)
    AND CASE :state::text
        WHEN 'any' THEN true
        WHEN '' THEN k.state <> 'revoked' AND (s.expires_at IS NULL OR s.expires_at > now())
        ELSE k.state = :state
    END
    AND starts_with(k.name, :beginning::text)
    AND (
        :after::text IS NULL
        OR (k.created_at, s.created_at, s.lookup) > (
            SELECT o.created_at, a.created_at, a.lookup
            FROM secrets AS a JOIN keys AS o ON o.id = a.key_id
            WHERE a.lookup = :after
        )
    )
ORDER BY k.created_at, s.created_at, s.lookup
LIMIT :count::bigint;

-- name: find_key(prefix)^
-- Every command that takes --prefix.
SELECT
    k.id, k.name, k.state, k.tenant_id, t.name AS tenant, t.timezone,
    k.models, k.cidrs::text[] AS cidrs, k.expires_at, k.max_output, k.log_prompts_s, k.policy,
    k.requests_per_minute, k.tokens_per_minute, k.concurrency,
    k.tokens_per_day, k.tokens_per_month, k.tokens_total
FROM secrets AS s JOIN keys AS k ON k.id = s.key_id JOIN tenants AS t ON t.id = k.tenant_id
WHERE s.lookup = :prefix
FOR UPDATE OF k;

-- name: tenant_limits(tenant)^
-- set-limits --prefix: no lock, as whoever holds the tenant may wait for the key.
SELECT requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
FROM tenants
WHERE id = :tenant;

-- name: keys_of(tenant)
-- apply: the keys of a tenant by name, each with the handle of its newest secret.
SELECT DISTINCT ON (k.name) k.name, k.state, k.expires_at, s.lookup AS prefix
FROM tenants AS t JOIN keys AS k ON k.tenant_id = t.id JOIN secrets AS s ON s.key_id = k.id
WHERE t.name = :tenant
ORDER BY k.name, s.created_at DESC;

-- name: limits_now(tenant, prefix)
-- show-limits: a tenant, then each of its keys that is not revoked, or the one with this prefix; no row locks.
WITH owner AS (
    SELECT * FROM tenants
    WHERE name = :tenant::text
        OR id = (SELECT k.tenant_id FROM secrets AS s JOIN keys AS k ON k.id = s.key_id WHERE s.lookup = :prefix::text)
), named AS (
    SELECT DISTINCT ON (s.key_id) s.key_id, s.lookup
    FROM secrets AS s JOIN keys AS k ON k.id = s.key_id JOIN owner AS o ON o.id = k.tenant_id
    WHERE s.lookup = :prefix OR :prefix IS NULL AND k.state <> 'revoked'
    ORDER BY s.key_id, s.created_at
)
SELECT
    o.name AS scope, o.id AS tenant, NULL::uuid AS key, o.timezone,
    o.requests_per_minute, o.tokens_per_minute, o.concurrency, o.tokens_per_day, o.tokens_per_month, o.tokens_total,
    NULL::text[] AS models, NULL::text[] AS cidrs, NULL::timestamptz AS expires_at, NULL::bigint AS max_output,
    NULL::bigint AS log_prompts_s,
    o.policy, NULL::timestamptz AS created_at
FROM owner AS o
UNION ALL
SELECT
    n.lookup, k.tenant_id, k.id, '',
    k.requests_per_minute, k.tokens_per_minute, k.concurrency, k.tokens_per_day, k.tokens_per_month, k.tokens_total,
    k.models, k.cidrs::text[], k.expires_at, k.max_output, k.log_prompts_s, k.policy, k.created_at
FROM named AS n JOIN keys AS k ON k.id = n.key_id
ORDER BY created_at NULLS FIRST, scope;

-- name: set_key_limits(key, models, cidrs, expires_at, max_output, log_prompts_s, policy, rpm, tpm, concurrency, day, month, total)!
-- set-limits --prefix.
UPDATE keys SET
    models = :models, cidrs = :cidrs::text[]::cidr[], expires_at = :expires_at, max_output = :max_output,
    log_prompts_s = :log_prompts_s, policy = :policy::jsonb, requests_per_minute = :rpm, tokens_per_minute = :tpm, concurrency = :concurrency,
    tokens_per_day = :day, tokens_per_month = :month, tokens_total = :total, version = version + 1
WHERE id = :key;

-- name: set_key_state(key, state)!
-- revoke-key (for good, with all of the key's secrets), disable-key, enable-key.
UPDATE keys SET state = :state, version = version + 1 WHERE id = :key AND state <> 'revoked' AND state <> :state;

-- name: touch_key(key)!
-- rotate-key, revoke-secret: what a process remembers of the key's secrets is old.
UPDATE keys SET version = version + 1 WHERE id = :key;

-- name: credit_request(request, tokens, at, actor, reason)^
-- usage credit --request: a function with the owner's rights, as no command may write to the ledger.
SELECT request, number AS entry, input AS input_tokens, output AS output_tokens
FROM credit_request(:request, :tokens, :at, :actor, :reason);

-- name: credit_tenant(tenant, key, tokens, at, day, actor, reason)^
-- usage credit --tenant, likewise.
SELECT request, number AS entry, input AS input_tokens, output AS output_tokens
FROM credit_tenant(:tenant, :key, :tokens, :at, :day, :actor, :reason);
