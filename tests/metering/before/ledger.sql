-- name: owners(lookups)
-- metering.settle: whose a credential's handle is, revoked or not.
SELECT s.lookup, k.tenant_id, k.id AS key_id
FROM secrets AS s
JOIN keys AS k ON k.id = s.key_id
WHERE s.lookup = ANY(:lookups::text[]);

-- name: ensure_partition(day)$
-- metering.settle: before rows of a day are inserted.
SELECT ensure_ledger_partition(:day);

-- name: add_open(rows)!
-- metering.settle: open lines whose record is not in the same batch, nor in the ledger already.
INSERT INTO open_requests
SELECT o.*
FROM unnest(:rows::open_requests[]) AS o
WHERE NOT EXISTS (SELECT FROM ledger AS l WHERE l.request_id = o.request_id)
ON CONFLICT DO NOTHING;

-- name: end_open(ids)!
-- metering.settle: requests whose record has come.
DELETE FROM open_requests
WHERE request_id = ANY(:ids::uuid[]);

-- name: take_dead_boots(node, boot)
-- metering.orphans: open requests of a Caddy process that a later one has replaced.
DELETE FROM open_requests
WHERE node = :node AND boot < :boot
RETURNING *;

-- name: take_overdue(node, before)
-- metering.orphans: open requests that must have ended long ago, and those of nodes that never return.
DELETE FROM open_requests
WHERE (node = :node AND deadline < :before)
    OR node IN (SELECT n.node FROM nodes AS n WHERE n.retired_at IS NOT NULL)
RETURNING *;

-- name: add_ledger(rows)
-- metering.settle: only the rows answered are new, and only they count; each waits to be published.
WITH added AS (
    INSERT INTO ledger
    SELECT r.*
    FROM unnest(:rows::ledger[]) AS r
    ON CONFLICT DO NOTHING
    RETURNING request_id, entry, tenant_id, key_id
), waiting AS (
    INSERT INTO unpublished (request_id, entry, tenant_id, key_id)
    SELECT request_id, entry, tenant_id, key_id
    FROM added
    WHERE tenant_id IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT request_id
FROM added;

-- name: orphans_charged(ids)
-- metering.settle: which of these requests were settled at their reservation and not adjusted yet.
SELECT l.request_id, l.tenant_id, l.key_id, l.day, l.month, l.input_tokens, l.output_tokens
FROM ledger AS l
WHERE l.request_id = ANY(:ids::uuid[])
    AND l.entry = 0
    AND (l.usage_source = 'reserved' OR l.outcome = 'swept')
    AND NOT EXISTS (SELECT FROM ledger AS a WHERE a.request_id = l.request_id AND a.entry = 1);

-- name: raise_windows(scopes, periods, starts, tenants, used)
-- metering.settle, last of the transaction, for the shortest lock on a tenant's row.
INSERT INTO budget_windows AS w (scope_id, period, start, tenant_id, used)
SELECT u.scope_id, u.period, u.start, u.tenant_id, u.used
FROM unnest(:scopes::uuid[], :periods::text[], :starts::date[], :tenants::uuid[], :used::bigint[])
    AS u (scope_id, period, start, tenant_id, used)
ORDER BY u.scope_id, u.period, u.start
ON CONFLICT (scope_id, period, start) DO UPDATE
SET used = w.used + excluded.used, version = w.version + 1
RETURNING tenant_id, scope_id, period, start, used, version;

-- name: ratios(models)
-- metering.settle: what models have shown.
SELECT model, input_bytes_per_token, output_bytes_per_token, output_tokens_per_delta, output_tokens_per_s
FROM model_ratios
WHERE model = ANY(:models::text[]);

-- name: learn(lessons)!
-- metering.settle: moving averages over about the last thousand answers of a model.
INSERT INTO model_ratios AS m
    (
        model, input_bytes_per_token, output_bytes_per_token, output_tokens_per_delta, output_tokens_per_s,
        template_tokens, samples
    )
SELECT l.*
FROM unnest(:lessons::model_ratios[]) AS l
ORDER BY l.model
ON CONFLICT (model) DO UPDATE
SET input_bytes_per_token = m.input_bytes_per_token
        + (excluded.input_bytes_per_token - m.input_bytes_per_token)
        * excluded.samples / (least(m.samples, 1000) + excluded.samples),
    output_bytes_per_token = m.output_bytes_per_token
        + (excluded.output_bytes_per_token - m.output_bytes_per_token)
        * excluded.samples / (least(m.samples, 1000) + excluded.samples),
    output_tokens_per_delta = m.output_tokens_per_delta
        + (excluded.output_tokens_per_delta - m.output_tokens_per_delta)
        * excluded.samples / (least(m.samples, 1000) + excluded.samples),
    template_tokens = greatest(m.template_tokens, excluded.template_tokens),
    output_tokens_per_s = m.output_tokens_per_s
        + (excluded.output_tokens_per_s - m.output_tokens_per_s)
        * excluded.samples / (least(m.samples, 1000) + excluded.samples),
    samples = m.samples + excluded.samples;

-- name: unpublished(count)
-- metering.publish, on start and after a failure: closed requests that Redis has not been told of.
SELECT u.request_id, u.entry, u.tenant_id, u.key_id, l.day, l.month,
    (SELECT sum(e.input_tokens + e.output_tokens)::bigint FROM ledger AS e WHERE e.request_id = u.request_id)
        AS tokens
FROM unpublished AS u
JOIN ledger AS l USING (request_id, entry)
ORDER BY u.tenant_id, u.request_id, u.entry
LIMIT :count;

-- name: windows(scopes, starts)
-- metering.publish: what tenants and keys have used of some windows.
SELECT tenant_id, scope_id, period, start, used, version
FROM budget_windows
WHERE scope_id = ANY(:scopes::uuid[]) AND start = ANY(:starts::date[]);

-- name: published(ids, entries)!
-- metering.publish: Redis has been told.
DELETE FROM unpublished AS u
USING unnest(:ids::uuid[], :entries::smallint[]) AS p (request_id, entry)
WHERE u.request_id = p.request_id AND u.entry = p.entry;

-- name: every_eof_at()$
-- metering.orphans: how far every node's journal is known; null if one's never was read to an end.
SELECT CASE WHEN bool_and(eof_at IS NOT NULL) THEN min(eof_at) END
FROM nodes
WHERE retired_at IS NULL;

-- name: tenants()
-- metering.orphans: whose reservations to look through.
SELECT id
FROM tenants;

-- name: in_no_journal(ids)
-- metering.orphans: of these requests those that no open line and no record was ever read of.
SELECT u.id
FROM unnest(:ids::uuid[]) AS u (id)
WHERE NOT EXISTS (SELECT FROM open_requests AS o WHERE o.request_id = u.id)
    AND NOT EXISTS (SELECT FROM ledger AS l WHERE l.request_id = u.id);

-- name: publish_again(ids)!
-- metering.orphans: requests that Redis still holds although the ledger knows their end.
INSERT INTO unpublished (request_id, entry, tenant_id, key_id)
SELECT request_id, entry, tenant_id, key_id
FROM ledger
WHERE request_id = ANY(:ids::uuid[]) AND entry = 0 AND tenant_id IS NOT NULL
ON CONFLICT DO NOTHING;

-- name: partitions()
-- metering.retention: the days the ledger has.
SELECT to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD') AS day
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'ledger'::regclass AND c.relname ~ '^ledger_\d{8}$'
ORDER BY day;

-- name: drop_partition(day)$
-- metering.retention: forget the requests of a day; what was used of windows stays.
SELECT drop_ledger_partition(:day);

-- name: add_uses(rows)!
-- metering.settle: the ledger's sums for `usage`.
INSERT INTO usage_daily AS u
SELECT r.*
FROM unnest(:rows::usage_daily[]) AS r
ON CONFLICT (day, key_id, model) DO UPDATE
SET requests = u.requests + excluded.requests,
    input_tokens = u.input_tokens + excluded.input_tokens,
    output_tokens = u.output_tokens + excluded.output_tokens;

-- name: kept_refusals(keys, minutes, most)
-- metering.settle: which denied requests of a key and minute are ledger rows already, if not too many.
SELECT k.key_id, k.minute, l.request_id
FROM unnest(:keys::uuid[], :minutes::timestamptz[]) AS k (key_id, minute)
CROSS JOIN LATERAL (
    SELECT request_id
    FROM ledger
    WHERE key_id = k.key_id AND outcome = 'denied'
        AND request_id >= uuid7_floor(k.minute)
        AND request_id < uuid7_floor(k.minute + interval '1 minute')
    LIMIT :most
) AS l;

-- name: add_refusals(rows)!
-- metering.settle: refusals that are no ledger rows.
INSERT INTO refusals_per_minute AS p
SELECT r.*
FROM unnest(:rows::refusals_per_minute[]) AS r
ON CONFLICT (minute, key_id, source, reason) DO UPDATE SET refusals = p.refusals + excluded.refusals;

-- name: forget_refusals(before)!
-- metering.retention: counts of refusals as old as the days of the ledger that go.
DELETE FROM refusals_per_minute
WHERE minute < :before::date::timestamp AT TIME ZONE 'UTC';
