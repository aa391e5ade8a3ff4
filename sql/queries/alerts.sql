-- name: raise_alerts(source, at, queued, alerts)
-- alerts.book: what is not raised yet, of a JSON list; so many may wait to be posted, the critical ones first.
-- An event is raised once in its period, and not again while it lasts.
INSERT INTO alerts (
    name, subject, period, source, is_lasting, severity, tenant, key, node, backend, value, summary, action,
    raised_at, due_at
)
SELECT
    a.name, a.subject, a.period, :source, a.is_lasting, a.severity, a.tenant, a.key, a.node, a.backend, a.value,
    a.summary, a.action, :at::timestamptz,
    CASE
        WHEN w.waiting + row_number() OVER (ORDER BY a.severity = 'critical' DESC, a.subject) <= :queued::bigint
            THEN :at::timestamptz
    END
FROM jsonb_to_recordset(:alerts::jsonb) AS a (
    name text, subject text, period text, is_lasting boolean, severity text, tenant text, key text, node text,
    backend text, value bigint, summary text, action text
)
CROSS JOIN (SELECT count(*) AS waiting FROM alerts WHERE due_at IS NOT NULL) AS w
WHERE NOT EXISTS (
    SELECT
    FROM alerts AS o
    WHERE o.name = a.name AND o.subject = a.subject
        AND (o.period = a.period OR (o.is_lasting AND o.recovered_at IS NULL))
)
ON CONFLICT DO NOTHING
RETURNING name, subject, due_at IS NOT NULL AS is_queued;

-- name: close_alerts(source, at, names, subjects)!
-- alerts.book: what has recovered; that is posted if the alert was.
UPDATE alerts AS a
SET recovered_at = :at::timestamptz,
    due_at = CASE WHEN posted_at IS NULL THEN due_at ELSE :at::timestamptz END,
    attempts = 0
FROM unnest(:names::text[], :subjects::text[]) AS r (name, subject)
WHERE a.name = r.name AND a.subject = r.subject AND a.source = :source AND a.is_lasting
    AND a.recovered_at IS NULL;

-- name: open_alerts(source)
-- alerts.book: what a source has raised that lasts.
SELECT name, subject
FROM alerts
WHERE source = :source AND is_lasting AND recovered_at IS NULL;

-- name: last_value(name, subject)$
-- alerts.book: what was alerted of a figure that only grows.
SELECT value
FROM alerts
WHERE name = :name AND subject = :subject
ORDER BY raised_at DESC
LIMIT 1;

-- name: lease(name, holder, at, until)$
-- alerts.book: take or renew a lease; no row while another one holds it.
INSERT INTO alert_leases AS l (name, holder, until)
VALUES (:name, :holder, :until)
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, until = excluded.until
WHERE l.holder = excluded.holder OR l.until < :at::timestamptz
RETURNING true;

-- name: due_alerts(at, count)
-- alerts.poster: what is to be posted now.
SELECT id, name, severity, tenant, key, node, backend, value, summary, action, raised_at, recovered_at, posted_at,
    attempts
FROM alerts
WHERE due_at <= :at
ORDER BY due_at, raised_at
LIMIT :count;

-- name: claim_alert(id, attempts, at, next_at)$
-- alerts.poster, before it is posted: no other process posts it until then, and a crash leaves it due.
UPDATE alerts
SET attempts = attempts + 1, due_at = :next_at
WHERE id = :id AND attempts = :attempts AND due_at <= :at
RETURNING true;

-- name: mark_posted(id, at, is_recovery)!
-- alerts.poster, after it was posted: nothing more is, unless it has recovered meanwhile.
UPDATE alerts
SET posted_at = coalesce(posted_at, :at::timestamptz),
    attempts = 0,
    due_at = CASE WHEN NOT :is_recovery::boolean AND recovered_at IS NOT NULL THEN :at::timestamptz END
WHERE id = :id;

-- name: give_up(before)
-- alerts.poster: what could not be posted for so long that it is no news any more.
UPDATE alerts
SET due_at = NULL
WHERE due_at IS NOT NULL AND coalesce(recovered_at, raised_at) < :before
RETURNING name, subject;

-- name: leave_unposted()!
-- alerts.poster, where there is no receiver: what lasts waits for one, the rest is in the list alone.
UPDATE alerts
SET due_at = NULL
WHERE due_at IS NOT NULL AND (NOT is_lasting OR recovered_at IS NOT NULL);

-- name: forget_alerts(before)!
-- alerts.poster: alerts of long ago, but not what lasts.
DELETE FROM alerts
WHERE raised_at < :before AND (NOT is_lasting OR recovered_at IS NOT NULL);

-- name: latest_alerts(since, count)
-- alerts list: newest first.
SELECT id, name, severity, tenant, key, node, backend, value, summary, action, raised_at AS raised,
    recovered_at AS recovered, posted_at AS posted, due_at IS NOT NULL AS is_queued
FROM alerts
WHERE raised_at >= :since OR (is_lasting AND recovered_at IS NULL)
ORDER BY alerts.raised_at DESC, name, subject, period
LIMIT :count::bigint;
