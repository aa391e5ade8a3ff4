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

-- name: list_tenants()
-- list-tenants.
SELECT t.id, t.name, t.state, t.timezone, t.created_at, count(k.id) FILTER (WHERE k.state <> 'revoked') AS keys
FROM tenants AS t LEFT JOIN keys AS k ON k.tenant_id = t.id
GROUP BY t.id
ORDER BY t.name;

-- name: find_tenant(name)^
-- Every command that takes --tenant.
SELECT
    id, name, state, timezone, policy,
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

-- name: insert_key(key, tenant, name, models, cidrs, expires_at, max_output, policy, rpm, tpm, concurrency, day, month, total)!
-- create-key.
INSERT INTO keys (
    id, tenant_id, name, models, cidrs, expires_at, max_output, policy,
    requests_per_minute, tokens_per_minute, concurrency, tokens_per_day, tokens_per_month, tokens_total
)
VALUES (
    :key, :tenant, :name, :models, :cidrs::text[]::cidr[], :expires_at, :max_output, :policy::jsonb,
    :rpm, :tpm, :concurrency, :day, :month, :total
);

-- name: insert_secret(lookup, key, tag, pepper_id, hash)!
-- create-key, rotate-key.
INSERT INTO secrets (lookup, key_id, tag, pepper_id, hash) VALUES (:lookup, :key, :tag, :pepper_id, :hash);

-- name: expire_secrets(key, at, spared)!
-- rotate-key: the older secrets of a key end when the grace period does.
UPDATE secrets SET expires_at = least(expires_at, :at) WHERE key_id = :key AND lookup <> :spared;

-- name: is_tenant(name)$
-- list-keys: an empty list and no tenant are two things.
SELECT EXISTS (SELECT FROM tenants WHERE name = :name);

-- name: list_keys(tenant, state, beginning)
-- list-keys: a key once per secret. Without a state: neither revoked keys nor secrets that a rotation has ended.
SELECT
    s.lookup AS prefix, k.id, k.name, k.state, k.models, k.cidrs::text[] AS cidrs, k.max_output,
    least(k.expires_at, s.expires_at) AS expires_at, k.created_at
FROM tenants AS t JOIN keys AS k ON k.tenant_id = t.id JOIN secrets AS s ON s.key_id = k.id
WHERE t.name = :tenant
    AND CASE :state::text
        WHEN 'any' THEN true
        WHEN '' THEN k.state <> 'revoked' AND (s.expires_at IS NULL OR s.expires_at > now())
        ELSE k.state = :state
    END
    AND starts_with(k.name, :beginning::text)
ORDER BY k.created_at, s.created_at;

-- name: find_key(prefix)^
-- Every command that takes --prefix.
SELECT
    k.id, k.name, k.state, k.tenant_id, t.name AS tenant, t.timezone,
    k.models, k.cidrs::text[] AS cidrs, k.expires_at, k.max_output, k.policy,
    k.requests_per_minute, k.tokens_per_minute, k.concurrency,
    k.tokens_per_day, k.tokens_per_month, k.tokens_total
FROM secrets AS s JOIN keys AS k ON k.id = s.key_id JOIN tenants AS t ON t.id = k.tenant_id
WHERE s.lookup = :prefix
FOR UPDATE OF k;

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
    o.policy, NULL::timestamptz AS created_at
FROM owner AS o
UNION ALL
SELECT
    n.lookup, k.tenant_id, k.id, '',
    k.requests_per_minute, k.tokens_per_minute, k.concurrency, k.tokens_per_day, k.tokens_per_month, k.tokens_total,
    k.models, k.cidrs::text[], k.expires_at, k.max_output, k.policy, k.created_at
FROM named AS n JOIN keys AS k ON k.id = n.key_id
ORDER BY created_at NULLS FIRST, scope;

-- name: set_key_limits(key, models, cidrs, expires_at, max_output, policy, rpm, tpm, concurrency, day, month, total)!
-- set-limits --prefix.
UPDATE keys SET
    models = :models, cidrs = :cidrs::text[]::cidr[], expires_at = :expires_at, max_output = :max_output,
    policy = :policy::jsonb, requests_per_minute = :rpm, tokens_per_minute = :tpm, concurrency = :concurrency,
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

-- name: sums(by, tenants, whole_from, whole_to, key, since, until, head_until, tail_from)
-- usage: whole days of each tenant from their sums, and what two moments leave of the days that they cut
-- from the ledger: ids before head_until of a day before the whole ones, ids from tail_from of one after.
-- An end that is a day cuts none; then head_until lies before, or tail_from after, every request.
WITH whose AS (
    SELECT w.id, w.whole_from, w.whole_to
    FROM unnest(:tenants::uuid[], :whole_from::date[], :whole_to::date[]) AS w (id, whole_from, whole_to)
), parts AS (
    SELECT u.day, u.tenant_id, u.key_id, u.model, u.requests, u.input_tokens, u.output_tokens
    FROM usage_daily AS u JOIN whose AS w ON w.id = u.tenant_id
    WHERE u.day >= w.whole_from AND u.day < w.whole_to
    UNION ALL
    SELECT
        d.day, l.tenant_id, coalesce(l.key_id, l.tenant_id), coalesce(l.model, ''),
        (l.entry = 0 AND l.backend IS NOT NULL)::int, l.input_tokens, l.output_tokens
    FROM ledger AS l
    JOIN whose AS w ON w.id = l.tenant_id
    CROSS JOIN LATERAL (SELECT coalesce(l.day, uuid7_day(l.request_id)) AS day) AS d
    WHERE l.request_id >= uuid7_floor(:since::timestamptz) AND l.request_id < uuid7_floor(:until::timestamptz)
        AND (
            l.request_id < uuid7_floor(:head_until::timestamptz) AND d.day < w.whole_from
            AND (d.day < w.whole_to OR l.request_id >= uuid7_floor(:tail_from::timestamptz))
            OR l.request_id >= uuid7_floor(:tail_from::timestamptz) AND d.day >= w.whole_to
            AND (d.day >= w.whole_from OR l.request_id < uuid7_floor(:head_until::timestamptz))
        )
        AND (l.input_tokens <> 0 OR l.output_tokens <> 0 OR l.entry = 0 AND l.backend IS NOT NULL)
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
WHERE :key::uuid IS NULL OR key_id = :key
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4;

-- name: statement(tenant, first, after)
-- usage statement: a tenant's sums of a month, by key and model.
SELECT
    coalesce(min(s.lookup), '') AS key, coalesce(k.name, '(credits)') AS name, u.model,
    u.requests, u.input_tokens, u.output_tokens
FROM (
    SELECT
        key_id, model, sum(requests)::bigint AS requests,
        sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens
    FROM usage_daily
    WHERE tenant_id = :tenant AND day >= :first AND day < :after
    GROUP BY key_id, model
) AS u
LEFT JOIN keys AS k ON k.id = u.key_id
LEFT JOIN secrets AS s ON s.key_id = k.id
GROUP BY u.key_id, k.name, u.model, u.requests, u.input_tokens, u.output_tokens;

-- name: month_used(tenant, first)$
-- usage statement: what the tenant's budget of the month counted.
SELECT used FROM budget_windows WHERE scope_id = :tenant AND period = 'month' AND start = :first;

-- name: timezones(tenant)
-- usage: whose days are where.
SELECT id, timezone FROM tenants WHERE :tenant::uuid IS NULL OR id = :tenant;

-- name: credit_request(request, tokens, at, actor, reason)^
-- usage credit --request: a function with the owner's rights, as no command may write to the ledger.
SELECT request, number AS entry, input AS input_tokens, output AS output_tokens
FROM credit_request(:request, :tokens, :at, :actor, :reason);

-- name: credit_tenant(tenant, key, tokens, at, day, actor, reason)^
-- usage credit --tenant, likewise.
SELECT request, number AS entry, input AS input_tokens, output AS output_tokens
FROM credit_tenant(:tenant, :key, :tokens, :at, :day, :actor, :reason);

-- name: is_day_dropped(day)$
-- usage: whether a day was billed whose ledger is not kept any more.
SELECT
    to_regclass('ledger_' || to_char(:day::date, 'YYYYMMDD')) IS NULL
    AND EXISTS (SELECT FROM usage_daily WHERE day = :day);

-- name: named_keys(tenant, key)
-- usage: what keys are called, used or not.
SELECT k.id, t.id AS tenant_id, t.name AS tenant, min(s.lookup) AS key, k.name, k.created_at
FROM keys AS k JOIN tenants AS t ON t.id = k.tenant_id JOIN secrets AS s ON s.key_id = k.id
WHERE (:tenant::uuid IS NULL OR t.id = :tenant) AND (:key::uuid IS NULL OR k.id = :key)
GROUP BY t.id, k.id
UNION ALL
SELECT t.id, t.id, t.name, '', '(credits)', NULL
FROM tenants AS t
WHERE :key::uuid IS NULL AND (:tenant::uuid IS NULL OR t.id = :tenant)
    AND EXISTS (SELECT FROM usage_daily AS u WHERE u.tenant_id = t.id AND u.key_id = t.id)
ORDER BY tenant, created_at, id;

-- name: named_tenants(tenant, key)
-- usage --by tenant: what tenants are called, used or not.
SELECT id, name
FROM tenants
WHERE (:tenant::uuid IS NULL OR id = :tenant)
    AND (:key::uuid IS NULL OR id = (SELECT tenant_id FROM keys WHERE id = :key))
ORDER BY name;

-- name: ledger_days(since, until)
-- usage export: for each day the first id and the end of its ids, so that a page reads one day.
SELECT
    greatest(uuid7_floor(d.midnight), uuid7_floor(:since::timestamptz)) AS first,
    least(uuid7_floor(d.midnight + interval '1 day'), uuid7_floor(coalesce(:until::timestamptz, now()))) AS until
FROM (
    SELECT to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS midnight
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'ledger'::regclass AND c.relname ~ '^ledger_\d{8}$' AND NOT i.inhdetachpending
) AS d
WHERE d.midnight + interval '1 day' > coalesce(:since::timestamptz, '-infinity')
    AND d.midnight < coalesce(:until::timestamptz, now())
ORDER BY d.midnight;

-- name: ledger_rows(tenant, after, entry, end, count)
-- usage export: a page of the ledger, row by row.
SELECT *
FROM ledger
WHERE request_id >= :after::uuid AND request_id < :end::uuid
    AND (request_id, entry) > (:after::uuid, :entry::smallint)
    AND (:tenant::uuid IS NULL OR tenant_id = :tenant)
ORDER BY request_id, entry
LIMIT :count;

-- name: ledger_names()
-- usage export: what tenants and keys are called.
SELECT id, name FROM tenants UNION ALL SELECT id, name FROM keys;

-- name: losses()^
-- usage export: journal lines of which the ledger can't know.
SELECT
    (SELECT coalesce(sum(lost), 0)::bigint FROM journal_sequences) AS lost_lines,
    (SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL) AS dead_letters;

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

-- name: letters(after, count, shown)
-- dead-letters list: a page, with the beginning of each line.
SELECT id, node, at, reason, length, substring(raw FOR :shown::int) AS beginning, is_replay_wanted, replayed_at
FROM dead_letters
WHERE id > :after
ORDER BY id
LIMIT :count;

-- name: want_replay(ids)
-- dead-letters replay: metering reads those again that are wanted, if they were kept whole.
UPDATE dead_letters
SET is_replay_wanted = true
WHERE id = ANY(ARRAY(
    SELECT id
    FROM dead_letters
    WHERE replayed_at IS NULL AND length = octet_length(raw)
        AND (:ids::bigint[] IS NULL OR id = ANY(:ids::bigint[]))
    ORDER BY id
    FOR UPDATE
))
RETURNING id;

-- name: letters_now(ids)
-- dead-letters replay: what has become of them.
SELECT id, is_replay_wanted, replayed_at FROM dead_letters WHERE id = ANY(:ids::bigint[]);
