-- name: stay_serial()!
-- metering.watch, on connect: sums over a day of the ledger are in no hurry.
SET max_parallel_workers_per_gather = 0;

-- name: tally(node)
-- metering.watch: what can be counted in a moment; with Redis away for hours there is no end to count to.
SELECT
    (SELECT count(*) FROM (SELECT FROM open_requests WHERE node = :node LIMIT 100000) AS o) AS open_requests,
    (SELECT count(*) FROM (SELECT FROM dead_letters WHERE node = :node AND replayed_at IS NULL LIMIT 100000) AS d)
        AS dead_letters,
    (SELECT coalesce(sum(lost), 0)::bigint FROM journal_sequences WHERE node = :node) AS lost_lines,
    (SELECT count(*) FROM (SELECT FROM unpublished LIMIT 100000) AS u) AS unpublished,
    (
        WITH RECURSIVE m (model) AS ( -- from each model to the next: of a model there is a row a tenant
            SELECT min(f.model) FROM learned_figures AS f WHERE f.scope_id = f.tenant_id
            UNION ALL
            SELECT (
                SELECT min(f.model) FROM learned_figures AS f
                WHERE f.scope_id = f.tenant_id AND f.model > m.model
            )
            FROM m
            WHERE m.model IS NOT NULL
        )

        SELECT count(model) FROM m
    ) AS learned_models;

-- name: tenants_after(tenant, count)
-- metering.reconcile: whose books are next.
SELECT id
FROM tenants
WHERE id > :tenant
ORDER BY id
LIMIT :count;

-- name: reckon(tenant, first, last)
-- metering.reconcile: a day is the sum of its ledger rows, a month of its days, the total of its months. One
-- statement sees one moment, so that what is settled meanwhile is in both sides or in neither. A window's
-- requests have their ids within a day of it, whatever the time zone: three partitions are read, no more.
WITH scopes AS (
    SELECT id FROM keys WHERE tenant_id = :tenant
    UNION ALL
    SELECT :tenant::uuid
), spent AS (
    SELECT key_id, day, sum(input_tokens + output_tokens)::bigint AS tokens
    FROM ledger
    WHERE tenant_id = :tenant
        AND day BETWEEN :first AND :last
        AND request_id >= uuid7_floor((:first::date - 1)::timestamp AT TIME ZONE 'UTC')
        AND request_id < uuid7_floor((:last::date + 2)::timestamp AT TIME ZONE 'UTC')
    GROUP BY key_id, day
), ledger_days AS (
    -- A credit to a tenant alone is no key's.
    SELECT key_id AS scope_id, day AS start, tokens FROM spent WHERE tokens <> 0 AND key_id IS NOT NULL
    UNION ALL
    SELECT :tenant, day, sum(tokens)::bigint FROM spent GROUP BY day HAVING sum(tokens) <> 0
), days AS (
    SELECT w.scope_id, w.start, w.used, w.version
    FROM scopes AS s
    JOIN budget_windows AS w ON w.scope_id = s.id AND w.period = 'day' AND w.start BETWEEN :first AND :last
)
SELECT scope_id, 'day' AS period, start, coalesce(d.used, 0) AS used, coalesce(d.version, 0) AS version,
    coalesce(l.tokens, 0) AS tokens
FROM ledger_days AS l
FULL JOIN days AS d USING (scope_id, start)
UNION ALL
SELECT w.scope_id, 'month', w.start, w.used, w.version, (
        SELECT coalesce(sum(d.used), 0)::bigint
        FROM budget_windows AS d
        WHERE d.scope_id = w.scope_id AND d.period = 'day'
            AND d.start >= w.start AND d.start < w.start + interval '1 month'
    )
FROM scopes AS s
JOIN budget_windows AS w
    ON w.scope_id = s.id AND w.period = 'month' AND w.start >= date_trunc('month', :first::timestamp)::date
UNION ALL
SELECT w.scope_id, 'total', w.start, w.used, w.version, (
        SELECT coalesce(sum(m.used), 0)::bigint
        FROM budget_windows AS m
        WHERE m.scope_id = w.scope_id AND m.period = 'month'
    )
FROM scopes AS s
JOIN budget_windows AS w ON w.scope_id = s.id AND w.period = 'total';

-- name: lock_repairs(tenant)$
-- metering.reconcile: two processes that find the same tokens missing must not both add them.
SELECT pg_advisory_xact_lock(hashtextextended('repair ' || :tenant::uuid::text, 0));

-- name: lock_windows(tenant, first)
-- metering.reconcile, before it changes windows: in the order in which settlement locks them.
SELECT scope_id
FROM budget_windows
WHERE tenant_id = :tenant
    AND (period = 'total' OR start >= date_trunc('month', :first::timestamp)::date)
ORDER BY scope_id, period, start
FOR UPDATE;

-- name: raise_window(scope, period, start, tenant, missing)!
-- metering.reconcile: add what a window lacks of what it is the sum of.
INSERT INTO budget_windows AS w (scope_id, period, start, tenant_id, used)
VALUES (:scope, :period, :start, :tenant, :missing)
ON CONFLICT (scope_id, period, start) DO UPDATE
SET used = w.used + excluded.used, version = w.version + 1;

-- name: published_totals(tenant, first, last)
-- metering.reconcile: the current windows of a tenant, if Redis knows every row in them.
WITH scopes AS (
    SELECT id FROM keys WHERE tenant_id = :tenant
    UNION ALL
    SELECT :tenant::uuid
)
SELECT w.scope_id, w.period, w.start, w.used, w.version
FROM scopes AS s
JOIN budget_windows AS w ON w.scope_id = s.id AND (
    w.period = 'day' AND w.start BETWEEN :first AND :last
    OR w.period = 'month' AND w.start >= date_trunc('month', :first::timestamp)::date
    OR w.period = 'total'
)
WHERE NOT EXISTS (SELECT FROM unpublished AS u WHERE u.tenant_id = :tenant);

-- name: outbid(scopes, periods, starts, versions)
-- metering.reconcile: what Redis holds differs; only a version above its own makes it take ours.
UPDATE budget_windows AS w
SET version = greatest(w.version, o.version) + 1
FROM (
    SELECT scope_id, period, start, u.version
    FROM unnest(:scopes::uuid[], :periods::text[], :starts::date[], :versions::bigint[])
        AS u (scope_id, period, start, version)
    JOIN budget_windows AS l USING (scope_id, period, start)
    ORDER BY scope_id, period, start
    FOR UPDATE OF l
) AS o
WHERE w.scope_id = o.scope_id AND w.period = o.period AND w.start = o.start
RETURNING w.scope_id, w.period, w.start, w.used, w.version;

-- name: budgets_used(at, percent)
-- metering.watch: the budgets of which so much is used, in the windows that are current where the tenant is.
WITH scopes AS (
    SELECT id, name AS tenant, NULL::text AS key, (:at::timestamptz AT TIME ZONE timezone)::date AS today,
        tokens_per_day, tokens_per_month, tokens_total
    FROM tenants
    WHERE state = 'active'
    UNION ALL
    SELECT k.id, t.name, k.name, (:at::timestamptz AT TIME ZONE t.timezone)::date,
        k.tokens_per_day, k.tokens_per_month, k.tokens_total
    FROM keys AS k
    JOIN tenants AS t ON t.id = k.tenant_id
    WHERE k.state = 'active' AND t.state = 'active'
)

SELECT s.tenant, s.key, w.period, w.start, w.used, b.budget
FROM scopes AS s
CROSS JOIN LATERAL (
    VALUES ('day', s.today, s.tokens_per_day),
        ('month', date_trunc('month', s.today::timestamp)::date, s.tokens_per_month),
        ('total', '1970-01-01'::date, s.tokens_total)
) AS b (period, start, budget)
JOIN budget_windows AS w ON w.scope_id = s.id AND w.period = b.period AND w.start = b.start
WHERE b.budget IS NOT NULL AND w.used >= b.budget / 100.0 * :percent
ORDER BY s.tenant, s.key NULLS FIRST, w.period;
