-- name: retire_node(node)$
-- node retire: its journal never comes back.
UPDATE nodes SET retired_at = now() WHERE node = :node AND retired_at IS NULL RETURNING node;

-- name: list_nodes()
-- node list.
SELECT node, boot, eof_at, retired_at, created_at FROM nodes ORDER BY created_at;

-- name: events(since, tenant, key, actor, after_at, after_place, count)
-- audit: what administrators did, what was refused request by request, and what was only counted; a page behind a
-- row, or all. A place is one row's alone, and changes of one moment stand in the order in which they were made.
SELECT e.at, e.place, e.actor, e.action, t.name AS tenant, k.name AS key, e.old, e.new
FROM (
    SELECT
        at, 'a' || lpad(id::text, 19, '0') AS place, actor, action, tenant_id, key_id, old::text, new::text
    FROM admin_audit
    WHERE at >= :since::timestamptz
    UNION ALL
    SELECT
        l.at, 'r' || l.request_id || '.' || l.entry, coalesce(l.lookup, l.ip, c.address, 'unknown'), 'request_' || l.outcome, l.tenant_id, l.key_id, NULL,
        json_strip_nulls(json_build_object(
            'reason', l.reason, 'status', l.status, 'method', l.method, 'path', l.path, 'model', l.model,
            'ip', coalesce(l.ip, c.address), 'request', l.request_id, 'trace', l.trace_id
        ))::text
    FROM ledger AS l LEFT JOIN client_addresses AS c ON c.id = l.address_id
    WHERE l.request_id >= uuid7_floor(:since) AND l.outcome IN ('denied', 'refused', 'authz_failed')
    UNION ALL
    SELECT
        minute, 'm' || md5(concat_ws(' ', key_id, source, reason)), coalesce(text(source), 'many'), 'requests_denied', tenant_id, key_id, NULL,
        json_build_object('reason', reason, 'refusals', refusals)::text
    FROM refusals_per_minute
    WHERE minute >= date_trunc('minute', :since::timestamptz)
) AS e
LEFT JOIN tenants AS t ON t.id = e.tenant_id
LEFT JOIN keys AS k ON k.id = e.key_id
WHERE (:tenant::uuid IS NULL OR e.tenant_id = :tenant) AND (:key::uuid IS NULL OR e.key_id = :key)
    AND (:actor::text IS NULL OR e.actor = :actor)
    AND (:after_at::timestamptz IS NULL OR (e.at, e.place COLLATE "C") > (:after_at, :after_place::text))
ORDER BY e.at, e.place COLLATE "C"
LIMIT :count::bigint;

-- name: letters(after, count, shown, reason, is_waiting)
-- dead-letters list: a page behind an id, or all, with the beginning of each line.
SELECT id, node, at, reason, length, substring(raw FOR :shown::int) AS beginning, is_replay_wanted, replayed_at
FROM dead_letters
WHERE id > :after AND (:reason::text IS NULL OR reason = :reason) AND (NOT :is_waiting OR replayed_at IS NULL)
ORDER BY id
LIMIT :count::bigint;

-- name: want_replay(ids)
-- dead-letters replay: metering reads those again that are wanted, if they were kept whole.
WITH chosen AS (
    SELECT id, is_replay_wanted AS was_wanted
    FROM dead_letters
    WHERE replayed_at IS NULL AND length = octet_length(raw)
        AND (:ids::bigint[] IS NULL OR id = ANY(:ids::bigint[]))
    ORDER BY id
    FOR UPDATE
), wanted AS (
    UPDATE dead_letters
    SET is_replay_wanted = true
    WHERE id = ANY(ARRAY(SELECT id FROM chosen WHERE NOT was_wanted))
)
SELECT id, was_wanted FROM chosen ORDER BY id;

-- name: letters_now(ids)
-- dead-letters replay: what has become of them.
SELECT id, is_replay_wanted, replayed_at FROM dead_letters WHERE id = ANY(:ids::bigint[]);
