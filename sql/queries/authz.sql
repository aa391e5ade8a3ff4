-- name: act_as(role)$
-- Every connection, first of all: the program's own role.
SELECT set_config('role', :role, false);

-- name: find_identity(lookup)^
-- The tenant and key of a secret; authz asks on a cache miss, and again when a version has moved.
SELECT
    s.lookup, s.tag, s.pepper_id, s.hash, s.expires_at AS secret_expires_at,
    k.id AS key_id, k.name AS key_name, k.state AS key_state, k.version AS key_version,
    k.models, k.cidrs::text[] AS cidrs, k.expires_at, k.max_output, k.log_prompts_s, k.policy AS key_policy,
    k.requests_per_minute AS key_requests_per_minute, k.tokens_per_minute AS key_tokens_per_minute,
    k.concurrency AS key_concurrency, k.tokens_per_day AS key_tokens_per_day,
    k.tokens_per_month AS key_tokens_per_month, k.tokens_total AS key_tokens_total,
    t.id AS tenant_id, t.name AS tenant_name, t.state AS tenant_state, t.version AS tenant_version,
    t.timezone, t.policy,
    t.requests_per_minute, t.tokens_per_minute, t.concurrency,
    t.tokens_per_day, t.tokens_per_month, t.tokens_total
FROM secrets AS s
JOIN keys AS k ON k.id = s.key_id
JOIN tenants AS t ON t.id = k.tenant_id
WHERE s.lookup = :lookup;

-- name: handles(since, after, most)
-- The public handles of secrets, a page, with the clock by which they are made: another one is invented, or was
-- made a moment ago.
SELECT lookup, created_at, now() AS read_at
FROM secrets
WHERE (created_at, lookup) > (:since, :after)
ORDER BY created_at, lookup
LIMIT :most;

-- name: known_nodes()
-- The nodes whose requests may be admitted; authz asks when it meets one it does not know.
SELECT node FROM nodes WHERE retired_at IS NULL;

-- name: are_nodes_read(since)$
-- Whether every node's journal has been read to an end later than a moment; the rebuild asks.
SELECT coalesce(bool_and(eof_at > :since), true) FROM nodes WHERE retired_at IS NULL;

-- name: tenant_version(tenant)$
-- The rebuild's reading: the tenant.
SELECT version FROM tenants WHERE id = :tenant;

-- name: key_versions(tenant)
-- The rebuild's reading: its keys.
SELECT id, version FROM keys WHERE tenant_id = :tenant;

-- name: totals(tenant, day, month)
-- The rebuild's reading: the windows that can still pay for a request.
SELECT scope_id, period, start, used, version
FROM budget_windows
WHERE tenant_id = :tenant AND (
    period = 'total' OR (period = 'day' AND start >= :day) OR (period = 'month' AND start >= :month)
);

-- name: open_requests(tenant)
-- The rebuild's reading: what runs, as far as any journal says, and the most that it can be charged, which
-- the release before does not write.
SELECT request_id, key_id, coalesce(ceiling_input, reserved_input) AS held_input,
    coalesce(ceiling_output, reserved_output) AS held_output, day, month, deadline
FROM open_requests
WHERE tenant_id = :tenant;

-- name: closed_requests(tenant, since)
-- The rebuild's reading: ids young enough to be admitted that are settled already.
SELECT request_id FROM ledger WHERE tenant_id = :tenant AND request_id >= uuid7_floor(:since);

-- name: unpublished_versions()
-- Versions committed whose rise has not reached Redis; the commands publish them, metering repeats it.
SELECT id AS tenant_id, NULL::uuid AS key_id, version FROM tenants WHERE published_version < version
UNION ALL
SELECT tenant_id, id, version FROM keys WHERE published_version < version;

-- name: mark_tenant_published(tenant, version)!
-- Redis knows this version of a tenant.
UPDATE tenants SET published_version = greatest(published_version, :version) WHERE id = :tenant;

-- name: mark_key_published(key, version)!
-- Redis knows this version of a key.
UPDATE keys SET published_version = greatest(published_version, :version) WHERE id = :key;

-- name: disable_key(lookup)$
-- authz disables a key whose tag matches and whose hash does not: the table was written to by hand.
SELECT disable_key(:lookup);

-- name: outbid_versions(tenant, tenant_known, key, key_known)$
-- Redis knows later versions than Postgres, which has gone back in time: raise these beyond those.
SELECT outbid_versions(:tenant, :tenant_known, :key, :key_known);

-- name: own_use(tenant, key, days, most)
-- /v1/usage: what a key has used on these days, the newest first.
SELECT day, model, requests, input_tokens, output_tokens
FROM usage_daily
WHERE day = ANY(:days::date[]) AND key_id = :key AND tenant_id = :tenant
ORDER BY day DESC, model
LIMIT :most;

-- name: tenant_ids()
-- Every tenant; authz rebuilds the lost ones when it starts, so that no client has to meet the loss.
SELECT id FROM tenants;

-- name: names()
-- streams list: what tenants and keys are called.
SELECT id, name FROM tenants UNION ALL SELECT id, name FROM keys;

-- name: plan_each_time()!
-- Every connection, when it is made: a plan that serves all parameters locks every day of the ledger, and a
-- transaction that is forgotten keeps Postgres from clearing away what is dead.
SELECT
    set_config('plan_cache_mode', 'force_custom_plan', false),
    set_config('idle_in_transaction_session_timeout', '60s', false);

-- name: learned_of_tenants(most)
-- Once a minute: what the answers of every tenant have shown of models; all rows where `most` is null.
SELECT tenant_id, model, answer_tokens, generations, prompt_bytes, prompt_tokens
FROM learned_figures
WHERE scope_id = tenant_id AND generations > 0
LIMIT :most;
