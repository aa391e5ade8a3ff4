-- migrate:up

-- What is kept of the ledger. kept_days: the policy, null keeps all. oldest_day: rows of requests whose
-- id is of an earlier day are refused, because that day may have been billed and dropped.
CREATE TABLE ledger_retention (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    kept_days int CHECK (kept_days > 0),
    oldest_day date NOT NULL DEFAULT '1970-01-01'
);

INSERT INTO ledger_retention DEFAULT VALUES;

-- The oldest day that may still be billed; whoever adds to the ledger may ask.
CREATE FUNCTION oldest_ledger_day() RETURNS date
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT oldest_day FROM ledger_retention;
$$;

-- It reads the catalog's rows: to_regclass() remembers that there was no such table, and whoever has waited
-- for another session to make the day would not find it.
CREATE FUNCTION is_attached(part text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_class AS c
        JOIN pg_inherits AS i ON i.inhrelid = c.oid
        WHERE c.relname = part AND i.inhparent = 'ledger'::regclass AND NOT i.inhdetachpending
    );
$$;

-- A day's partition, attached rather than created in place: that waits for no reader of the ledger. A day
-- that was dropped is not made again.
CREATE OR REPLACE FUNCTION ensure_ledger_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part text := 'ledger_' || to_char(day, 'YYYYMMDD');
    midnight timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF is_attached(part) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_ledger_partition'));
    IF is_attached(part) THEN
        RETURN;
    END IF;
    IF day < oldest_ledger_day() THEN
        RAISE check_violation USING MESSAGE = format('the ledger of %s was dropped', day);
    ELSIF to_regclass(part) IS NOT NULL THEN
        RAISE check_violation USING MESSAGE = format('%s is detached from the ledger: attach it again', part);
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE ledger INCLUDING ALL)', part);
    EXECUTE format(
        'ALTER TABLE ledger ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        part, uuid7_floor(midnight), uuid7_floor(midnight + interval '1 day')
    );
END
$$;

-- Stores how many days are kept; a change is audited.
CREATE FUNCTION keep_ledger_days(days int) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    former int;
BEGIN
    SELECT kept_days INTO former FROM ledger_retention FOR UPDATE;
    IF former IS NOT DISTINCT FROM days THEN
        RETURN;
    END IF;
    UPDATE ledger_retention SET kept_days = days;
    INSERT INTO admin_audit (actor, action, old, new)
    VALUES (
        'metering', 'ledger_policy_changed',
        jsonb_build_object('kept_days', former), jsonb_build_object('kept_days', days)
    );
END
$$;

-- Closes a day before its partition is detached and dropped: from now on its rows are refused. False if
-- Redis does not know all of it; an error if the policy keeps the day, by Postgres's clock.
CREATE FUNCTION close_ledger_day(day date) RETURNS boolean
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    midnight timestamptz := day::timestamp AT TIME ZONE 'UTC';
    kept int;
BEGIN
    SELECT kept_days INTO kept FROM ledger_retention FOR UPDATE;
    IF kept IS NULL OR day >= (now() AT TIME ZONE 'UTC')::date - kept THEN
        RAISE EXCEPTION 'the policy keeps the ledger of %: % days', day, coalesce(kept::text, 'all');
    END IF;
    IF EXISTS (
        SELECT FROM unpublished
        WHERE request_id >= uuid7_floor(midnight) AND request_id < uuid7_floor(midnight + interval '1 day')
    ) THEN
        RETURN false;
    END IF;
    UPDATE ledger_retention SET oldest_day = greatest(oldest_day, day + 1);
    INSERT INTO admin_audit (actor, action, old)
    VALUES ('metering', 'ledger_day_dropped', jsonb_build_object('day', day, 'kept_days', kept));
    RETURN true;
END
$$;

REVOKE EXECUTE ON FUNCTION keep_ledger_days (int), close_ledger_day (date) FROM PUBLIC;

-- An earlier release that still runs drops nothing: it would do so in the transaction of its loop, and
-- without asking for the policy.
CREATE OR REPLACE FUNCTION drop_ledger_partition(day date) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
RETURN false;

-- The outbox is read page by page, tenant by tenant; a day's rows are looked for when it is dropped.
ALTER TABLE unpublished
    DROP CONSTRAINT unpublished_pkey,
    ADD PRIMARY KEY (tenant_id, request_id, entry);

DROP INDEX unpublished_tenant;

CREATE INDEX unpublished_request ON unpublished (request_id);

-- Small tables that every batch changes: a fifth of their rows is too long to wait for a vacuum, and what
-- is dead slows every batch.
ALTER TABLE unpublished SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

ALTER TABLE open_requests SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

ALTER TABLE journal_files SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

ALTER TABLE journal_sequences SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

ALTER TABLE nodes SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

ALTER TABLE budget_windows SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

ALTER TABLE usage_daily SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000);

ALTER TABLE model_ratios SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- migrate:down

ALTER TABLE model_ratios RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

ALTER TABLE usage_daily RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

ALTER TABLE budget_windows RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

ALTER TABLE nodes RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

ALTER TABLE journal_sequences RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

ALTER TABLE journal_files RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

ALTER TABLE open_requests RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

ALTER TABLE unpublished RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold);

DROP INDEX unpublished_request;

ALTER TABLE unpublished
    DROP CONSTRAINT unpublished_pkey,
    ADD PRIMARY KEY (request_id, entry);

CREATE INDEX unpublished_tenant ON unpublished (tenant_id);

CREATE OR REPLACE FUNCTION drop_ledger_partition(day date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    midnight timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF EXISTS (
        SELECT FROM unpublished
        WHERE request_id >= uuid7_floor(midnight) AND request_id < uuid7_floor(midnight + interval '1 day')
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', 'ledger_' || to_char(day, 'YYYYMMDD'));
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

DROP FUNCTION close_ledger_day (date);

DROP FUNCTION keep_ledger_days (int);

CREATE OR REPLACE FUNCTION ensure_ledger_partition(day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part text := 'ledger_' || to_char(day, 'YYYYMMDD');
    midnight timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_ledger_partition'));
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE ledger INCLUDING ALL)', part);
    EXECUTE format(
        'ALTER TABLE ledger ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        part, uuid7_floor(midnight), uuid7_floor(midnight + interval '1 day')
    );
END
$$;

DROP FUNCTION is_attached (text);

DROP FUNCTION oldest_ledger_day ();

DROP TABLE ledger_retention;
