-- migrate:up

-- The name of an end user goes with the last day of the ledger that has a request of it.
ALTER TABLE end_users ADD COLUMN last_day date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date;

CREATE INDEX end_users_last_day ON end_users (last_day);

COMMENT ON COLUMN end_users.last_day IS 'The day, in UTC, on which a request of it was settled last.';

-- As before, and notes once a day that a name is used. A row that another session holds is left to that one,
-- so that neither waits for the other.
CREATE OR REPLACE FUNCTION end_user_ids(tenants_of uuid[], names text[]) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    ids uuid[] := array_fill(NULL::uuid, ARRAY[cardinality(names)]);
    has_new boolean;
    has_old boolean;
BEGIN
    IF array_remove(names, NULL) = '{}' THEN
        RETURN ids;
    END IF;
    FOR turn IN 1..2 LOOP
        SELECT array_agg(e.id ORDER BY g.place),
            bool_or(e.id IS NULL AND g.name IS NOT NULL AND g.tenant_id IS NOT NULL), bool_or(e.last_day < today)
        INTO ids, has_new, has_old
        FROM unnest(tenants_of, names) WITH ORDINALITY AS g (tenant_id, name, place)
        LEFT JOIN LATERAL (
            SELECT u.id, u.last_day FROM end_users AS u WHERE u.tenant_id = g.tenant_id AND u.name = g.name LIMIT 1
        ) AS e ON true;
        EXIT WHEN turn = 2 OR has_new IS NOT TRUE;
        INSERT INTO end_users (id, tenant_id, name, salt)
        SELECT encode(substring(sha256(n.salt || convert_to(n.name, 'UTF8')) FOR 16), 'hex')::uuid,
            n.tenant_id, n.name, n.salt
        FROM (
            SELECT d.*, uuid_send(gen_random_uuid()) AS salt
            FROM (
                SELECT DISTINCT g.tenant_id, g.name
                FROM unnest(tenants_of, names) AS g (tenant_id, name)
                WHERE g.name IS NOT NULL AND g.tenant_id IS NOT NULL
            ) AS d
            OFFSET 0
        ) AS n
        WHERE NOT EXISTS (SELECT FROM end_users AS e WHERE e.tenant_id = n.tenant_id AND e.name = n.name)
            AND NOT EXISTS (SELECT FROM tenants AS t WHERE t.id = n.tenant_id AND t.erased_at IS NOT NULL);
    END LOOP;
    IF has_old THEN
        UPDATE end_users SET last_day = today
        WHERE id IN (
            SELECT e.id FROM end_users AS e WHERE e.id = ANY(ids) AND e.last_day < today FOR UPDATE SKIP LOCKED
        );
    END IF;
    RETURN ids;
END
$$;

-- As before, and removes names that no day of the ledger has any more.
CREATE OR REPLACE FUNCTION forget_people(kept_days int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    first_kept date := (now() AT TIME ZONE 'UTC')::date - kept_days;
    removed bigint;
    more bigint;
    unnamed bigint;
BEGIN
    -- A request may be a day older than its settlement, and a moment younger.
    DELETE FROM end_users WHERE last_day < (SELECT r.oldest_day FROM ledger_retention AS r) - 1;
    GET DIAGNOSTICS unnamed = ROW_COUNT;
    WITH of_erased AS (
        DELETE FROM client_addresses AS a USING tenants AS t
        WHERE t.id = a.tenant_id AND t.erased_at IS NOT NULL
        RETURNING 1
    ), names AS (
        DELETE FROM end_users AS e USING tenants AS t
        WHERE t.id = e.tenant_id AND t.erased_at IS NOT NULL
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM of_erased) + (SELECT count(*) FROM names) + unnamed INTO removed;
    IF kept_days IS NULL THEN
        RETURN removed;
    END IF;
    DELETE FROM client_addresses WHERE day < first_kept;
    GET DIAGNOSTICS more = ROW_COUNT;
    removed := removed + more;
    -- Of refusals only the count stays.
    WITH sources AS (
        DELETE FROM refusals_per_minute
        WHERE source IS NOT NULL AND minute < first_kept::timestamp AT TIME ZONE 'UTC'
        RETURNING minute, tenant_id, key_id, reason, refusals
    ), counted AS (
        INSERT INTO refusals_per_minute AS r (minute, tenant_id, key_id, source, reason, refusals)
        SELECT minute, tenant_id, key_id, NULL, reason, sum(refusals)
        FROM sources
        GROUP BY minute, tenant_id, key_id, reason
        ORDER BY minute, key_id, reason
        ON CONFLICT (minute, key_id, source, reason) DO UPDATE SET refusals = r.refusals + excluded.refusals
    )
    SELECT count(*) INTO more FROM sources;
    removed := removed + more;
    UPDATE dead_letters SET raw = without_people(raw)
    WHERE at < first_kept::timestamp AT TIME ZONE 'UTC' AND raw <> without_people(raw);
    GET DIAGNOSTICS more = ROW_COUNT;
    RETURN removed + more;
END
$$;

-- migrate:down

CREATE OR REPLACE FUNCTION forget_people(kept_days int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    first_kept date := (now() AT TIME ZONE 'UTC')::date - kept_days;
    removed bigint;
    more bigint;
BEGIN
    WITH of_erased AS (
        DELETE FROM client_addresses AS a USING tenants AS t
        WHERE t.id = a.tenant_id AND t.erased_at IS NOT NULL
        RETURNING 1
    ), names AS (
        DELETE FROM end_users AS e USING tenants AS t
        WHERE t.id = e.tenant_id AND t.erased_at IS NOT NULL
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM of_erased) + (SELECT count(*) FROM names) INTO removed;
    IF kept_days IS NULL THEN
        RETURN removed;
    END IF;
    DELETE FROM client_addresses WHERE day < first_kept;
    GET DIAGNOSTICS more = ROW_COUNT;
    removed := removed + more;
    -- Of refusals only the count stays.
    WITH sources AS (
        DELETE FROM refusals_per_minute
        WHERE source IS NOT NULL AND minute < first_kept::timestamp AT TIME ZONE 'UTC'
        RETURNING minute, tenant_id, key_id, reason, refusals
    ), counted AS (
        INSERT INTO refusals_per_minute AS r (minute, tenant_id, key_id, source, reason, refusals)
        SELECT minute, tenant_id, key_id, NULL, reason, sum(refusals)
        FROM sources
        GROUP BY minute, tenant_id, key_id, reason
        ORDER BY minute, key_id, reason
        ON CONFLICT (minute, key_id, source, reason) DO UPDATE SET refusals = r.refusals + excluded.refusals
    )
    SELECT count(*) INTO more FROM sources;
    removed := removed + more;
    UPDATE dead_letters SET raw = without_people(raw)
    WHERE at < first_kept::timestamp AT TIME ZONE 'UTC' AND raw <> without_people(raw);
    GET DIAGNOSTICS more = ROW_COUNT;
    RETURN removed + more;
END
$$;

CREATE OR REPLACE FUNCTION end_user_ids(tenants_of uuid[], names text[]) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids uuid[] := array_fill(NULL::uuid, ARRAY[cardinality(names)]);
    has_new boolean;
BEGIN
    IF array_remove(names, NULL) = '{}' THEN
        RETURN ids;
    END IF;
    FOR turn IN 1..2 LOOP
        SELECT array_agg(e.id ORDER BY g.place),
            bool_or(e.id IS NULL AND g.name IS NOT NULL AND g.tenant_id IS NOT NULL)
        INTO ids, has_new
        FROM unnest(tenants_of, names) WITH ORDINALITY AS g (tenant_id, name, place)
        LEFT JOIN LATERAL (
            SELECT u.id FROM end_users AS u WHERE u.tenant_id = g.tenant_id AND u.name = g.name LIMIT 1
        ) AS e ON true;
        EXIT WHEN turn = 2 OR has_new IS NOT TRUE;
        INSERT INTO end_users (id, tenant_id, name, salt)
        SELECT encode(substring(sha256(n.salt || convert_to(n.name, 'UTF8')) FOR 16), 'hex')::uuid,
            n.tenant_id, n.name, n.salt
        FROM (
            SELECT d.*, uuid_send(gen_random_uuid()) AS salt
            FROM (
                SELECT DISTINCT g.tenant_id, g.name
                FROM unnest(tenants_of, names) AS g (tenant_id, name)
                WHERE g.name IS NOT NULL AND g.tenant_id IS NOT NULL
            ) AS d
            OFFSET 0
        ) AS n
        WHERE NOT EXISTS (SELECT FROM end_users AS e WHERE e.tenant_id = n.tenant_id AND e.name = n.name)
            AND NOT EXISTS (SELECT FROM tenants AS t WHERE t.id = n.tenant_id AND t.erased_at IS NOT NULL);
    END LOOP;
    RETURN ids;
END
$$;

ALTER TABLE end_users DROP COLUMN last_day;
