-- migrate:up

-- What was there before the chains is taken in as it is now, a link for each day; this locks nothing, and
-- what is added meanwhile is chained already.
DO $$
DECLARE
    of_day date;
    row_ids bytea;
    row_leaves bytea;
BEGIN
    PERFORM set_config('timezone', 'UTC', true), set_config('extra_float_digits', '1', true),
        set_config('plan_cache_mode', 'force_custom_plan', true);
    FOR of_day IN
        SELECT to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD')
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'ledger'::regclass AND c.relname ~ '^ledger_\d{8}$' AND NOT i.inhdetachpending
        ORDER BY 1
    LOOP
        SELECT string_agg(uuid_send(l.request_id) || int2send(l.entry), '' ORDER BY l.request_id, l.entry),
            string_agg(
                sha256('\x00'::bytea || convert_to(json_strip_nulls(row_to_json(l))::text, 'UTF8')), ''
                ORDER BY l.request_id, l.entry
            )
        INTO row_ids, row_leaves
        FROM ledger AS l
        WHERE l.request_id >= uuid7_floor(of_day::timestamp AT TIME ZONE 'UTC')
            AND l.request_id < uuid7_floor((of_day + 1)::timestamp AT TIME ZONE 'UTC')
            AND NOT EXISTS (
                SELECT FROM (
                    SELECT substring(b.ids FROM i * 18 + 1 FOR 18) AS id
                    FROM chain_batches AS b
                    JOIN chains AS c ON c.id = b.chain AND c.name NOT IN ('audit', 'before')
                    CROSS JOIN generate_series(0, octet_length(b.ids) / 18 - 1) AS i
                ) AS chained
                WHERE chained.id = uuid_send(l.request_id) || int2send(l.entry)
            );
        IF row_ids IS NOT NULL THEN
            PERFORM add_link('before', row_ids, row_leaves);
        END IF;
    END LOOP;
    SELECT string_agg(int8send(a.id), '' ORDER BY a.id),
        string_agg(
            sha256('\x00'::bytea || convert_to(json_strip_nulls(row_to_json(r))::text, 'UTF8')), '' ORDER BY a.id
        )
    INTO row_ids, row_leaves
    FROM admin_audit AS a
    CROSS JOIN LATERAL (
        SELECT a.id, a.at, a.actor, a.action, a.tenant_id, a.key_id, a.old::text AS old, a.new::text AS new
    ) AS r
    WHERE NOT EXISTS (
        SELECT FROM chain_batches AS b JOIN chains AS c ON c.id = b.chain AND c.name = 'audit'
        WHERE b.ids = int8send(a.id)
    );
    IF row_ids IS NOT NULL THEN
        PERFORM add_link('audit', row_ids, row_leaves);
    END IF;
END
$$;

-- migrate:down

-- Nothing to do: the links go with their table.
