-- name: write_texts()!
-- chains, on connect: rows are written as texts as they were when they were chained.
SELECT set_config('timezone', 'UTC', false), set_config('extra_float_digits', '1', false),
    set_config('work_mem', '64MB', false), set_config('max_parallel_workers_per_gather', '0', false);

-- name: identity()$
-- chains: which database this is.
SELECT id FROM database_identity;

-- name: chains()
-- chains: by their names.
SELECT id, name FROM chains ORDER BY name;

-- name: links(chain, after, count)
-- chains: a page of a chain's links.
SELECT number, at, version, ids, leaves, hash
FROM chain_batches
WHERE chain = :chain AND number > :after
ORDER BY number
LIMIT :count;

-- name: open_days(chain, after, last, closed)
-- chains: the days of a chain that are under no root yet, after its last one that is, with the hashes of their
-- links one after the other; if there is a last number, up to that.
SELECT day, min(number) AS first, max(number) AS last, string_agg(hash, '' ORDER BY number) AS hashes
FROM (
    SELECT number, hash, greatest((at AT TIME ZONE 'UTC')::date, :closed::date + 1) AS day
    FROM chain_batches
    WHERE chain = :chain AND number > :after AND number <= coalesce(:last::bigint, 9223372036854775807)
) AS b
GROUP BY day
ORDER BY day;

-- name: hashes(chain, first, last)$
-- chains: the hashes of some links, one after the other; null if none of them is kept.
SELECT string_agg(hash, '' ORDER BY number)
FROM chain_batches
WHERE chain = :chain AND number BETWEEN :first AND :last;

-- name: places(request, around)
-- chains: the rows of a request as texts, each with the link that has it. Most rows are chained at their own
-- time; a look at that time alone takes a millisecond. Of a link that can't have a row its first and last id are
-- read alone: they are in order.
SELECT r.entry, json_strip_nulls(row_to_json(r))::text AS text, k.*
FROM ledger AS r
LEFT JOIN LATERAL (
    SELECT c.name AS chain, c.id AS chain_number, b.number, b.at, b.version, b.ids, b.leaves, b.hash
    FROM chain_batches AS b
    JOIN chains AS c ON c.id = b.chain AND c.name <> 'audit'
    WHERE b.at >= r.at - :around::interval AND b.at < r.at + :around::interval
        AND CASE
            WHEN substring(b.ids FROM 1 FOR 16) > uuid_send(r.request_id) THEN false
            WHEN substring(b.ids FROM octet_length(b.ids) - 17 FOR 16) < uuid_send(r.request_id) THEN false
            ELSE position(uuid_send(r.request_id) || int2send(r.entry) IN b.ids) % 18 = 1
        END
    LIMIT 1
) AS k ON true
WHERE r.request_id = :request::uuid
ORDER BY r.entry;

-- name: days()
-- chains: the days that are under a root.
SELECT c.name AS chain, d.day, d.first, d.last, d.root, d.hash
FROM chain_days AS d JOIN chains AS c ON c.id = d.chain
ORDER BY d.day, c.name;

-- name: oldest_day()$
-- chains: what is of a day before this one is dropped.
SELECT oldest_day FROM ledger_retention;

-- name: restored_at()$
-- chains: when the database was last restored from a backup.
SELECT max(at) FROM admin_audit WHERE action = 'backup_restored';

-- name: row_days()
-- chains: the days, in UTC, of the ids of all rows, chained or not, as days since 1970; and whether the ledger still
-- has that day, whatever the policy says of it.
SELECT day, bool_or(has_rows) AS has_rows
FROM (
    SELECT to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD') - date '1970-01-01' AS day, true AS has_rows
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'ledger'::regclass AND c.relname ~ '^ledger_\d{8}$'
    UNION ALL
    SELECT (('x' || encode(substring(b.ids FROM e.at FOR 6), 'hex'))::bit(48)::bigint / 86400000)::int, false
    FROM chain_batches AS b
    JOIN chains AS c ON c.id = b.chain AND c.name <> 'audit'
    CROSS JOIN LATERAL (VALUES (1), (octet_length(b.ids) - 17)) AS e (at)
) AS d
GROUP BY day
ORDER BY day;

-- name: ledger_faults(first, until, since, before)
-- chains: rows of the ledger, of one day, that differ from what was chained about the time of that day. Links
-- are read as a whole, once: a piece of one would be fetched from where it is stored each time.
WITH links AS MATERIALIZED (
    SELECT c.name AS chain, k.number, k.ids || ''::bytea AS ids, k.leaves || ''::bytea AS leaves
    FROM chains AS c
    JOIN chain_batches AS k ON k.chain = c.id
    WHERE c.name <> 'audit'
        AND (k.at >= :since::timestamptz AND k.at < :before::timestamptz OR c.name = 'before')
        AND substring(k.ids FROM 1 FOR 16) < uuid_send(:until::uuid)
        AND substring(k.ids FROM octet_length(k.ids) - 17 FOR 16) >= uuid_send(:first::uuid)
), chained AS MATERIALIZED (
    SELECT b.chain, b.number, substring(b.ids FROM i * 18 + 1 FOR 18) AS id,
        substring(b.leaves FROM i * 32 + 1 FOR 32) AS leaf
    FROM links AS b
    CROSS JOIN LATERAL generate_series(0, octet_length(b.ids) / 18 - 1) AS i
), present AS MATERIALIZED (
    SELECT uuid_send(r.request_id) || int2send(r.entry) AS id,
        sha256('\x00'::bytea || convert_to(json_strip_nulls(row_to_json(r))::text, 'UTF8')) AS leaf
    FROM ledger AS r
    WHERE r.request_id >= :first::uuid AND r.request_id < :until::uuid
)
SELECT coalesce(l.id, e.id) AS id, l.leaf, e.chain, e.number
FROM present AS l
FULL JOIN (
    SELECT chain, number, id, leaf
    FROM chained
    WHERE id >= uuid_send(:first::uuid) AND id < uuid_send(:until::uuid)
) AS e ON e.id = l.id
WHERE l.leaf IS DISTINCT FROM e.leaf
ORDER BY 1;

-- name: late_rows(early_ms, late_ms)
-- chains: rows that were chained long after, or before, the day of their ids, such as corrections; with the
-- hash of the row as it is now. Ids are in order in a link, so its first and last say whether it has any.
WITH links AS MATERIALIZED (
    SELECT c.name AS chain, k.number, k.at, k.ids || ''::bytea AS ids, k.leaves || ''::bytea AS leaves
    FROM chains AS c
    JOIN chain_batches AS k ON k.chain = c.id
    CROSS JOIN LATERAL (
        SELECT
            ('x' || encode(substring(k.ids FROM 1 FOR 6), 'hex'))::bit(48)::bigint / 86400000 AS first,
            ('x' || encode(substring(k.ids FROM octet_length(k.ids) - 17 FOR 6), 'hex'))::bit(48)::bigint
            / 86400000 AS last
    ) AS d
    WHERE c.name NOT IN ('audit', 'before') AND (
        k.at < to_timestamp((d.last * 86400000 - :early_ms::bigint) / 1000.0)
        OR k.at >= to_timestamp((d.first * 86400000 + :late_ms::bigint) / 1000.0)
    )
), chained AS MATERIALIZED (
    SELECT b.chain, b.number, b.at, substring(b.ids FROM i * 18 + 1 FOR 18) AS id,
        substring(b.leaves FROM i * 32 + 1 FOR 32) AS leaf
    FROM links AS b
    CROSS JOIN LATERAL generate_series(0, octet_length(b.ids) / 18 - 1) AS i
)
SELECT e.chain, e.number, e.id, e.leaf AS chained, (
        SELECT sha256('\x00'::bytea || convert_to(json_strip_nulls(row_to_json(r))::text, 'UTF8'))
        FROM ledger AS r
        WHERE r.request_id = encode(substring(e.id FROM 1 FOR 16), 'hex')::uuid
            AND r.entry = ('x' || encode(substring(e.id FROM 17 FOR 2), 'hex'))::bit(16)::int
    ) AS leaf
FROM chained AS e
CROSS JOIN LATERAL (
    SELECT ('x' || encode(substring(e.id FROM 1 FOR 6), 'hex'))::bit(48)::bigint / 86400000 * 86400000 AS ms
) AS d
WHERE e.at < to_timestamp((d.ms - :early_ms::bigint) / 1000.0)
    OR e.at >= to_timestamp((d.ms + :late_ms::bigint) / 1000.0)
ORDER BY e.id;

-- name: audit_faults()
-- chains: rows of the audit that differ from what was chained. Of a row about a tenant the chain has a salted
-- digest of what was and is: both, and the salt, may be missing if the audit says later that the tenant was
-- erased, and nothing else may differ.
SELECT coalesce(l.id, e.id) AS id, l.leaf, e.chain, e.number
FROM (
    SELECT int8send(a.id) AS id, CASE
            WHEN a.details IS NULL OR a.details = encode(sha256(a.salt || convert_to(
                coalesce(a.old::text, '') || E'\n' || coalesce(a.new::text, ''), 'UTF8'
            )), 'hex') OR coalesce(a.salt::text, a.old::text, a.new::text) IS NULL AND EXISTS (
                SELECT FROM admin_audit AS e
                WHERE e.tenant_id = a.tenant_id AND e.action = 'tenant_erased' AND e.id > a.id
            )
            THEN sha256('\x00'::bytea || convert_to(json_strip_nulls(row_to_json(r))::text, 'UTF8'))
            ELSE ''
        END AS leaf
    FROM admin_audit AS a
    CROSS JOIN LATERAL (
        SELECT a.id, a.at, a.actor, a.action, a.tenant_id, a.key_id,
            CASE WHEN a.details IS NULL THEN a.old::text END AS old,
            CASE WHEN a.details IS NULL THEN a.new::text END AS new, a.details
    ) AS r
) AS l
FULL JOIN (
    SELECT c.name AS chain, b.number, substring(b.ids FROM i * 8 + 1 FOR 8) AS id,
        substring(b.leaves FROM i * 32 + 1 FOR 32) AS leaf
    FROM chains AS c
    JOIN chain_batches AS b ON b.chain = c.id
    CROSS JOIN LATERAL generate_series(0, octet_length(b.ids) / 8 - 1) AS i
    WHERE c.name = 'audit'
) AS e ON e.id = l.id
WHERE l.leaf IS DISTINCT FROM e.leaf
ORDER BY 1;

-- name: people_faults()
-- chains: end users and addresses that are not the ones for which the ledger has their ids.
SELECT 'end user' AS kind, id
FROM end_users
WHERE id <> encode(substring(sha256(salt || convert_to(name, 'UTF8')) FOR 16), 'hex')::uuid
UNION ALL
SELECT 'address', id
FROM client_addresses
WHERE id <> encode(substring(sha256(salt || convert_to(address, 'UTF8')) FOR 16), 'hex')::uuid
ORDER BY 1, 2;
