-- name: be_patient_briefly()!
-- metering.retention, on connect: what can't be done soon is done another time.
SELECT set_config('lock_timeout', '5s', false), set_config('statement_timeout', '30s', false);

-- name: alone()$
-- metering.retention: one process at a time drops days; the lock ends with the connection.
SELECT pg_try_advisory_lock(hashtext('ledger retention'));

-- name: clock()$
-- metering.retention: Postgres's clock, by which it judges how old a day is.
SELECT clock_timestamp();

-- name: keep_days(days)$
-- metering.retention: store the policy.
SELECT keep_ledger_days(:days::int);

-- name: old_days(kept)
-- metering.retention: days beyond the policy, oldest first, with what detaches and drops them. A day whose
-- detaching was interrupted comes first: until it is finished no other can be detached.
SELECT d.day, d.is_closed, d.is_attached,
    format(
        'ALTER TABLE ledger DETACH PARTITION %I %s', d.name,
        CASE WHEN d.is_pending THEN 'FINALIZE' ELSE 'CONCURRENTLY' END
    ) AS detach,
    format('DROP TABLE IF EXISTS %I', d.name) AS remove
FROM (
    SELECT c.relname AS name, to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD') AS day,
        to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD') < oldest_ledger_day() AS is_closed,
        i.inhrelid IS NOT NULL AS is_attached, coalesce(i.inhdetachpending, false) AS is_pending
    FROM pg_class AS c
    LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid AND i.inhparent = 'ledger'::regclass
    WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'ledger'::regclass)
        AND c.relname ~ '^ledger_\d{8}$'
) AS d
WHERE d.is_pending OR d.day < (now() AT TIME ZONE 'UTC')::date - :kept::int
ORDER BY d.is_pending DESC, d.day;

-- name: close_day(day)$
-- metering.retention: from now on rows of the day are refused; false if Redis does not know all of it.
SELECT close_ledger_day(:day);

-- name: oldest_day()$
-- metering.retention: the oldest day that may still be billed.
SELECT oldest_ledger_day();

-- name: forget_refusals(before, count)$
-- metering.retention: counts of refusals as old as the days of the ledger that went.
WITH removed AS (
    DELETE FROM refusals_per_minute
    WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM refusals_per_minute
        WHERE minute < :before::date::timestamp AT TIME ZONE 'UTC'
        LIMIT :count
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM removed;

-- name: forget_letters(before, count)$
-- metering.retention: lines that can't be billed any more, whatever a later release understands.
WITH removed AS (
    DELETE FROM dead_letters
    WHERE id = ANY(ARRAY(
        SELECT id FROM dead_letters
        WHERE at < :before::date::timestamp AT TIME ZONE 'UTC'
        ORDER BY id
        LIMIT :count
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM removed;

-- name: forget_windows(before, count)$
-- metering.retention: days of budgets whose month is compared with them no more. Months and totals stay.
WITH removed AS (
    DELETE FROM budget_windows
    WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM budget_windows
        WHERE period = 'day' AND start < date_trunc('month', :before::date - interval '2 months')::date
        LIMIT :count
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM removed;

-- name: forget_sequences(before)$
-- metering.retention: boots that another one followed so long ago that each of their lines is refused.
WITH removed AS (
    DELETE FROM journal_sequences
    WHERE ctid = ANY(ARRAY(
        SELECT s.ctid FROM journal_sequences AS s
        WHERE EXISTS (
            SELECT FROM journal_sequences AS later
            WHERE later.node = s.node AND later.boot > s.boot
                AND later.boot < uuid7_floor(:before::date::timestamp AT TIME ZONE 'UTC')
        )
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM removed;

-- name: forgettable_links(before)
-- metering.retention: days of chains, oldest first, whose rows are all dropped; a row is chained on the day of
-- its id or later, but for clocks that differ. A day that is closed and still there keeps its links. The audit's
-- rows stay.
SELECT d.chain, d.first, d.last
FROM chain_days AS d
JOIN chains AS c ON c.id = d.chain AND c.name <> 'audit'
WHERE d.day < least(:before::date, (
        SELECT min(to_date(substring(p.relname FROM '\d{8}$'), 'YYYYMMDD'))
        FROM pg_inherits AS i JOIN pg_class AS p ON p.oid = i.inhrelid
        WHERE i.inhparent = 'ledger'::regclass AND p.relname ~ '^ledger_\d{8}$'
    )) - 1
    AND EXISTS (SELECT FROM chain_batches AS b WHERE b.chain = d.chain AND b.number BETWEEN d.first AND d.last)
ORDER BY d.chain, d.day;

-- name: forget_links(chain, first, last)!
-- metering.retention: the links of one day at once, so that what is left of a chain has no hole.
DELETE FROM chain_batches
WHERE chain = :chain AND number BETWEEN :first AND :last;
