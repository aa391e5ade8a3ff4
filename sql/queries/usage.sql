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
    CASE WHEN 'tenant' = ANY(:by::text[]) THEN tenant_id END AS tenant,
    CASE WHEN 'key' = ANY(:by::text[]) THEN key_id END AS key,
    CASE WHEN 'model' = ANY(:by::text[]) THEN model END AS model,
    NULL::text AS end_user,
    CASE WHEN 'day' = ANY(:by::text[]) THEN day END AS day,
    CASE WHEN 'month' = ANY(:by::text[]) THEN date_trunc('month', day)::date END AS month,
    sum(requests)::bigint AS requests,
    sum(input_tokens)::bigint AS input_tokens,
    sum(output_tokens)::bigint AS output_tokens
FROM parts
WHERE :key::uuid IS NULL OR key_id = :key
GROUP BY 1, 2, 3, 4, 5, 6;

-- name: named_sums(by, tenants, whole_from, whole_to, key, since, until, head_until, tail_from, first, end)
-- usage --by end-user: neither sums of days nor `sums` name an end user. What the ledger says of ids from first
-- until end is moved from no name to its name; a correction is that of its request, which has the same id.
WITH parts AS (
    SELECT
        d.day, l.tenant_id, coalesce(l.key_id, l.tenant_id) AS key_id, coalesce(l.model, '') AS model, moved.name,
        moved.sign * (l.entry = 0 AND l.backend IS NOT NULL)::int AS requests,
        moved.sign * l.input_tokens AS input_tokens, moved.sign * l.output_tokens AS output_tokens
    FROM ledger AS l
    JOIN unnest(:tenants::uuid[], :whole_from::date[], :whole_to::date[]) AS w (id, whole_from, whole_to)
        ON w.id = l.tenant_id
    CROSS JOIN LATERAL (SELECT coalesce(l.day, uuid7_day(l.request_id)) AS day) AS d
    JOIN end_users AS e ON e.id = coalesce(l.end_user_id, (
        SELECT o.end_user_id FROM ledger AS o
        WHERE l.entry > 0 AND o.request_id = l.request_id AND o.entry = 0
            AND o.request_id >= :first::uuid AND o.request_id < :end::uuid
    ))
    CROSS JOIN LATERAL (VALUES (1, e.name), (-1, NULL)) AS moved (sign, name)
    WHERE l.request_id >= :first::uuid AND l.request_id < :end::uuid
        AND (l.end_user_id IS NOT NULL OR l.entry > 0)
        AND (
            d.day >= w.whole_from AND d.day < w.whole_to
            OR l.request_id >= uuid7_floor(:since::timestamptz)
            AND l.request_id < uuid7_floor(:until::timestamptz)
            AND (
                l.request_id < uuid7_floor(:head_until::timestamptz) AND d.day < w.whole_from
                AND (d.day < w.whole_to OR l.request_id >= uuid7_floor(:tail_from::timestamptz))
                OR l.request_id >= uuid7_floor(:tail_from::timestamptz) AND d.day >= w.whole_to
                AND (d.day >= w.whole_from OR l.request_id < uuid7_floor(:head_until::timestamptz))
            )
        )
)
SELECT
    tenant_id AS tenant,
    CASE WHEN 'key' = ANY(:by::text[]) THEN key_id END AS key,
    CASE WHEN 'model' = ANY(:by::text[]) THEN model END AS model,
    name AS end_user,
    CASE WHEN 'day' = ANY(:by::text[]) THEN day END AS day,
    CASE WHEN 'month' = ANY(:by::text[]) THEN date_trunc('month', day)::date END AS month,
    sum(requests)::bigint AS requests,
    sum(input_tokens)::bigint AS input_tokens,
    sum(output_tokens)::bigint AS output_tokens
FROM parts
WHERE :key::uuid IS NULL OR key_id = :key
GROUP BY 1, 2, 3, 4, 5, 6;

-- name: statement(tenant, first, after)
-- usage statement: a tenant's sums of a month, by key and model.
SELECT
    coalesce(k.name, '(credits)') AS key, coalesce(min(s.lookup), '') AS prefix, u.model,
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

-- name: month_days(tenant, first, after)
-- usage statement: a tenant's tokens on the days of a month.
SELECT day, sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens
FROM usage_daily
WHERE tenant_id = :tenant AND day >= :first AND day < :after
GROUP BY day
ORDER BY day;

-- name: month_sources(tenant, first, after)
-- usage statement: by what the tokens of a month are known, from the days of the ledger that are kept. An id
-- lies within a day of its window, whatever the time zone.
SELECT
    coalesce(s.lookup, '') AS prefix, l.model, l.usage_source AS source, l.requests, l.tokens, l.gpu_ms
FROM (
    SELECT
        key_id, coalesce(model, '') AS model, usage_source,
        count(*) FILTER (WHERE entry = 0 AND backend IS NOT NULL) AS requests,
        sum(input_tokens + output_tokens)::bigint AS tokens,
        coalesce(sum(coalesce(prompt_eval_ms, 0) + coalesce(eval_ms, 0)), 0)::bigint AS gpu_ms
    FROM ledger
    WHERE tenant_id = :tenant AND day >= :first AND day < :after
        AND request_id >= uuid7_floor((:first::date - 1)::timestamp AT TIME ZONE 'UTC')
        AND request_id < uuid7_floor((:after::date + 1)::timestamp AT TIME ZONE 'UTC')
        AND (input_tokens <> 0 OR output_tokens <> 0 OR entry = 0 AND backend IS NOT NULL)
    GROUP BY 1, 2, 3
) AS l
LEFT JOIN LATERAL (SELECT min(lookup) AS lookup FROM secrets WHERE key_id = l.key_id) AS s ON true;

-- name: is_month_kept(tenant, first, after)$
-- usage statement: whether the ledger still has the days of a month that were billed.
SELECT NOT EXISTS (
    SELECT FROM usage_daily
    WHERE tenant_id = :tenant AND day >= :first AND day < :after
        AND to_regclass('ledger_' || to_char(day, 'YYYYMMDD')) IS NULL
        AND to_regclass('ledger_' || to_char(day - 1, 'YYYYMMDD')) IS NULL
);

-- name: month_runs(tenant, first)$
-- usage statement: how many requests of a month still run.
SELECT count(*) FROM open_requests WHERE tenant_id = :tenant AND month = :first;

-- name: journals()
-- usage statement: what was read of each node's journal, and until when.
SELECT
    n.node, n.eof_at, n.retired_at,
    coalesce(sum(s.next - s.lost + cardinality(s.ahead)), 0)::bigint AS lines,
    coalesce(sum(s.lost), 0)::bigint AS lost_lines
FROM nodes AS n
LEFT JOIN journal_sequences AS s ON s.node = n.node
GROUP BY n.node, n.eof_at, n.retired_at, n.created_at
ORDER BY n.created_at, n.node;

-- name: month_sums(tenant, first, after)^
-- usage statement: what the days of a month sum up to, and what the tenant's budget counted, at one moment.
SELECT
    coalesce(sum(input_tokens + output_tokens), 0)::bigint AS tokens,
    coalesce((
        SELECT used FROM budget_windows WHERE scope_id = :tenant AND period = 'month' AND start = :first
    ), 0) AS budget
FROM usage_daily
WHERE tenant_id = :tenant AND day >= :first AND day < :after;

-- name: timezones(tenant)
-- usage: whose days are where.
SELECT id, timezone FROM tenants WHERE :tenant::uuid IS NULL OR id = :tenant;

-- name: is_day_dropped(day)$
-- usage: whether a day was billed whose ledger is not kept any more.
SELECT
    to_regclass('ledger_' || to_char(:day::date, 'YYYYMMDD')) IS NULL
    AND EXISTS (SELECT FROM usage_daily WHERE day = :day);

-- name: named_keys(tenant, key)
-- usage: what keys are called, used or not.
SELECT k.id, t.name AS tenant, k.name AS key, min(s.lookup) AS prefix
FROM keys AS k JOIN tenants AS t ON t.id = k.tenant_id JOIN secrets AS s ON s.key_id = k.id
WHERE (:tenant::uuid IS NULL OR t.id = :tenant) AND (:key::uuid IS NULL OR k.id = :key)
GROUP BY t.id, k.id
UNION ALL
SELECT t.id, t.name, '(credits)', ''
FROM tenants AS t
WHERE :key::uuid IS NULL AND (:tenant::uuid IS NULL OR t.id = :tenant)
    AND EXISTS (SELECT FROM usage_daily AS u WHERE u.tenant_id = t.id AND u.key_id = t.id);

-- name: named_tenants(tenant, key)
-- usage --by tenant: what tenants are called, used or not.
SELECT id, name AS tenant
FROM tenants
WHERE (:tenant::uuid IS NULL OR id = :tenant)
    AND (:key::uuid IS NULL OR id = (SELECT tenant_id FROM keys WHERE id = :key));

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

-- name: ledger_rows(tenant, since, until, after, entry, end, count)
-- usage export: a page of the ledger, row by row, with who it came from, as far as that is kept; since and until
-- are days of the tenants, null is no end.
SELECT l.*, c.address, e.name AS end_user
FROM ledger AS l
LEFT JOIN client_addresses AS c ON c.id = l.address_id
LEFT JOIN end_users AS e ON e.id = l.end_user_id
WHERE l.request_id >= :after::uuid AND l.request_id < :end::uuid
    AND (l.request_id, l.entry) > (:after::uuid, :entry::smallint)
    AND (:tenant::uuid IS NULL OR l.tenant_id = :tenant)
    AND (:since::date IS NULL OR coalesce(l.day, uuid7_day(l.request_id)) >= :since)
    AND (:until::date IS NULL OR coalesce(l.day, uuid7_day(l.request_id)) < :until)
ORDER BY l.request_id, l.entry
LIMIT :count;

-- name: ledger_names()
-- usage export: what tenants and keys are called.
SELECT id, name FROM tenants UNION ALL SELECT id, name FROM keys;

-- name: losses()^
-- usage export: journal lines of which the ledger can't know.
SELECT
    (SELECT coalesce(sum(lost), 0)::bigint FROM journal_sequences) AS lost_lines,
    (SELECT count(*) FROM dead_letters WHERE replayed_at IS NULL) AS dead_letters;

-- name: database_id()$
-- usage export --watermark: which database this is.
SELECT id FROM database_identity;

-- name: chain_heads()
-- usage export --watermark: how far the chains of the ledger go, and until where their rows are dropped.
SELECT
    c.id, c.name, coalesce(b.last, d.last, 0) AS head,
    CASE WHEN b.first IS NULL THEN coalesce(d.last, 0) ELSE b.first - 1 END AS dropped
FROM chains AS c
CROSS JOIN LATERAL (SELECT min(number) AS first, max(number) AS last FROM chain_batches WHERE chain = c.id) AS b
CROSS JOIN LATERAL (SELECT max(last) AS last FROM chain_days WHERE chain = c.id) AS d
WHERE c.name <> 'audit'
ORDER BY c.id;

-- name: links_added(chain, after, last, count)
-- usage export --watermark: a page of the links that were added.
SELECT number, ids
FROM chain_batches
WHERE chain = :chain AND number > :after AND number <= :last
ORDER BY number
LIMIT :count;

-- name: rows_added(requests, first, last)
-- usage export --watermark: all entries of the requests of a page.
SELECT l.*, c.address, e.name AS end_user
FROM ledger AS l
LEFT JOIN client_addresses AS c ON c.id = l.address_id
LEFT JOIN end_users AS e ON e.id = l.end_user_id
WHERE l.request_id = ANY(:requests::uuid[]) AND l.request_id >= :first::uuid AND l.request_id <= :last::uuid;
