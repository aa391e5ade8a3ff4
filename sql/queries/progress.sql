-- name: note_boots(boots, nodes, moments)!
-- metering.settle: when Caddy processes have written their last lines.
INSERT INTO boot_progress AS p (boot, node, last_at)
SELECT n.boot, n.node, n.last_at
FROM unnest(:boots::uuid[], :nodes::uuid[], :moments::timestamptz[]) AS n (boot, node, last_at)
ORDER BY n.boot
ON CONFLICT (boot) DO UPDATE
SET last_at = greatest(p.last_at, excluded.last_at);

-- name: note_progress(boot, at, ids, deltas, text_bytes, tool_bytes)!
-- metering.settle: what streams have delivered now; those that have not moved keep theirs, those that have
-- ended are left out. What had waited for a slot runs since it is first listed.
WITH moved AS (
    SELECT *
    FROM unnest(:ids::uuid[], :deltas::bigint[], :text_bytes::bigint[], :tool_bytes::bigint[])
        AS m (request_id, deltas, text_bytes, tool_bytes)
), started AS (
    UPDATE open_requests AS o
    SET started_at = :at::timestamptz
    FROM moved AS m
    WHERE o.request_id = m.request_id AND o.queued AND o.started_at IS NULL
), still AS (
    SELECT s.*
    FROM boot_progress AS p,
        unnest(p.ids, p.deltas, p.text_bytes, p.tool_bytes) AS s (request_id, deltas, text_bytes, tool_bytes)
    WHERE p.boot = :boot AND s.request_id <> ALL(:ids::uuid[])
), running AS (
    SELECT s.*
    FROM (SELECT * FROM moved UNION ALL SELECT * FROM still) AS s
    JOIN open_requests AS o USING (request_id)
), arrays AS (
    SELECT array_agg(request_id ORDER BY request_id) AS ids, array_agg(deltas ORDER BY request_id) AS deltas,
        array_agg(text_bytes ORDER BY request_id) AS text_bytes,
        array_agg(tool_bytes ORDER BY request_id) AS tool_bytes
    FROM running
)
UPDATE boot_progress AS p
SET progress_at = :at::timestamptz, ids = coalesce(a.ids, '{}'), deltas = coalesce(a.deltas, '{}'),
    text_bytes = coalesce(a.text_bytes, '{}'), tool_bytes = coalesce(a.tool_bytes, '{}')
FROM arrays AS a
WHERE p.boot = :boot;

-- name: progress_of(boots)
-- metering.orphans: what the streams of Caddy processes had delivered.
SELECT boot, progress_at, last_at, ids, deltas, text_bytes, tool_bytes
FROM boot_progress
WHERE boot = ANY(:boots::uuid[]);

-- name: forget_boots(node, boot)!
-- metering.settle: processes that a later one has replaced, and whose orphans are settled.
DELETE FROM boot_progress
WHERE node = :node AND boot < :boot;
