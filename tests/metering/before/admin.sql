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

-- name: sums(by, tenant, key, since, first_day)
-- usage: whole days from their sums, and what a moment leaves of its day from the ledger.
WITH parts AS (
    SELECT day, tenant_id, key_id, model, requests, input_tokens, output_tokens
    FROM usage_daily
    WHERE day >= :first_day::date
    UNION ALL
    SELECT
        :first_day::date - 1, tenant_id, key_id, coalesce(model, ''),
        (entry = 0 AND backend IS NOT NULL)::int, input_tokens, output_tokens
    FROM ledger
    WHERE request_id >= uuid7_floor(:since::timestamptz)
        AND request_id < uuid7_floor(:first_day::date::timestamp AT TIME ZONE 'UTC')
        AND tenant_id IS NOT NULL
        AND (input_tokens <> 0 OR output_tokens <> 0 OR entry = 0 AND backend IS NOT NULL)
)
SELECT
    CASE WHEN :by::text = 'day' THEN day END AS day,
    CASE WHEN :by::text = 'tenant' THEN tenant_id END AS tenant_id,
    CASE WHEN :by::text = 'key' THEN key_id END AS key_id,
    CASE WHEN :by::text = 'model' THEN model END AS model,
    sum(requests)::bigint AS requests,
    sum(input_tokens)::bigint AS input_tokens,
    sum(output_tokens)::bigint AS output_tokens
FROM parts
WHERE (:tenant::uuid IS NULL OR tenant_id = :tenant) AND (:key::uuid IS NULL OR key_id = :key)
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4;

-- name: is_day_dropped(day)$
-- usage: whether a day was billed whose ledger is not kept any more.
SELECT
    to_regclass('ledger_' || to_char(:day::date, 'YYYYMMDD')) IS NULL
    AND EXISTS (SELECT FROM usage_daily WHERE day = :day);

-- name: named_keys(tenant, key)
-- usage: what keys are called, used or not.
SELECT k.id, t.id AS tenant_id, t.name AS tenant, min(s.lookup) AS key, k.name
FROM keys AS k JOIN tenants AS t ON t.id = k.tenant_id JOIN secrets AS s ON s.key_id = k.id
WHERE (:tenant::uuid IS NULL OR t.id = :tenant) AND (:key::uuid IS NULL OR k.id = :key)
GROUP BY t.id, k.id
ORDER BY t.name, k.created_at, k.id;

-- name: named_tenants(tenant, key)
-- usage --by tenant: what tenants are called, used or not.
SELECT id, name
FROM tenants
WHERE (:tenant::uuid IS NULL OR id = :tenant)
    AND (:key::uuid IS NULL OR id = (SELECT tenant_id FROM keys WHERE id = :key))
ORDER BY name;

-- name: walk_in_order()!
-- usage export: along the ledger's primary key, whatever the planner thinks of it; no sort has the memory.
SELECT set_config('enable_sort', 'off', true), set_config('enable_seqscan', 'off', true);

-- name: ledger_rows(tenant, since, until)
-- usage export: the ledger, row by row.
SELECT *
FROM ledger
WHERE (:since::timestamptz IS NULL OR request_id >= uuid7_floor(:since))
    AND (:until::timestamptz IS NULL OR request_id < uuid7_floor(:until))
    AND (:tenant::uuid IS NULL OR tenant_id = :tenant)
ORDER BY request_id, entry;

-- name: events(since, tenant, key)
-- audit: what administrators did, what was refused request by request, and what was only counted.
SELECT e.at, e.actor, e.action, t.name AS tenant, k.name AS key, e.old, e.new
FROM (
    SELECT at, actor, action, tenant_id, key_id, old::text, new::text
    FROM admin_audit
    WHERE at >= :since::timestamptz
    UNION ALL
    SELECT
        at, coalesce(lookup, ip, 'unknown'), 'request_' || outcome, tenant_id, key_id, NULL,
        json_strip_nulls(json_build_object(
            'reason', reason, 'status', status, 'method', method, 'path', path, 'model', model,
            'ip', ip, 'request', request_id
        ))::text
    FROM ledger
    WHERE request_id >= uuid7_floor(:since) AND outcome IN ('denied', 'refused', 'authz_failed')
    UNION ALL
    SELECT
        minute, coalesce(text(source), 'many'), 'requests_denied', tenant_id, key_id, NULL,
        json_build_object('reason', reason, 'refusals', refusals)::text
    FROM refusals_per_minute
    WHERE minute >= date_trunc('minute', :since::timestamptz)
) AS e
LEFT JOIN tenants AS t ON t.id = e.tenant_id
LEFT JOIN keys AS k ON k.id = e.key_id
WHERE (:tenant::uuid IS NULL OR e.tenant_id = :tenant) AND (:key::uuid IS NULL OR e.key_id = :key)
ORDER BY e.at, e.action, e.actor;

-- name: letters()
-- dead-letters list.
SELECT id, node, at, reason, length, raw, is_replay_wanted, replayed_at
FROM dead_letters
ORDER BY id;

-- name: want_replay(ids)
-- dead-letters replay: metering reads those again that are wanted, if they were kept whole.
UPDATE dead_letters
SET is_replay_wanted = true
WHERE replayed_at IS NULL AND length = octet_length(raw)
    AND (:ids::bigint[] IS NULL OR id = ANY(:ids::bigint[]))
RETURNING id;

-- name: letters_now(ids)
-- dead-letters replay: what has become of them.
SELECT id, is_replay_wanted, replayed_at FROM dead_letters WHERE id = ANY(:ids::bigint[]);
