-- migrate:up

-- Sealed pieces of prompts (direction 0), answers (1) or both (2), by the day on which they expire. Only the
-- private key of a vault opens a box, and no server has it. It is null where the tenant had too much already.
CREATE TABLE prompt_pieces (
    expires_on date NOT NULL,
    request_id uuid NOT NULL,
    direction smallint NOT NULL CHECK (direction IN (0, 1, 2)),
    index bigint NOT NULL CHECK (index >= 0),
    flags smallint NOT NULL CHECK (flags >= 0),
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    vault text NOT NULL,
    box bytea,
    PRIMARY KEY (expires_on, request_id, direction, index)
) PARTITION BY LIST (expires_on);

CREATE INDEX prompt_pieces_tenant ON prompt_pieces (tenant_id, request_id);

-- How much a tenant has of each day, so that no batch has to add it up.
CREATE TABLE prompt_bytes (
    tenant_id uuid NOT NULL,
    expires_on date NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (tenant_id, expires_on)
);

-- What a tenant sent before its prompts were erased is not stored any more, if it comes late.
CREATE TABLE prompt_erasures (
    tenant_id uuid PRIMARY KEY,
    erased_at timestamptz NOT NULL
);

COMMENT ON TABLE prompt_pieces IS 'Sealed pieces of prompts and answers of the keys that keep them, until they expire.';
COMMENT ON TABLE prompt_bytes IS 'How many sealed bytes a tenant has of each day.';
COMMENT ON TABLE prompt_erasures IS 'When the prompts of a tenant were erased; what is older is not stored any more.';

-- Stores pieces, each once, but for those that have expired, or were erased, before they came. A tenant's
-- that exceed its most are noted without their box. Returns how many of these there were.
CREATE FUNCTION store_prompts(
    request_ids uuid[], directions smallint[], indexes bigint[], flags smallint[], tenant_ids uuid[],
    key_ids uuid[], moments timestamptz[], expiries timestamptz[], vaults text[], boxes bytea[], most bigint
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    day date;
    part text;
    beyond bigint;
BEGIN
    FOR day IN SELECT DISTINCT e::date FROM unnest(expiries) AS e WHERE e > now() LOOP
        part := 'prompt_pieces_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(part) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('store_prompts'));
        CONTINUE WHEN to_regclass(part) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE prompt_pieces INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE prompt_pieces ATTACH PARTITION %I FOR VALUES IN (%L)', part, day);
    END LOOP;
    WITH given AS (
        SELECT * FROM unnest(
            request_ids, directions, indexes, flags, tenant_ids, key_ids, moments, expiries, vaults, boxes
        ) WITH ORDINALITY AS g (request_id, direction, index, flags, tenant_id, key_id, at, expires_at, vault, box, place)
    ), weighed AS (
        SELECT g.*,
            sum(octet_length(g.box)) OVER (PARTITION BY g.tenant_id ORDER BY g.place)
            + coalesce((SELECT sum(b.bytes) FROM prompt_bytes AS b WHERE b.tenant_id = g.tenant_id), 0) AS total
        FROM given AS g LEFT JOIN prompt_erasures AS e ON e.tenant_id = g.tenant_id
        WHERE g.expires_at > now() AND (e.erased_at IS NULL OR g.at > e.erased_at)
    ), stored AS (
        INSERT INTO prompt_pieces AS p
        SELECT expires_at::date, w.request_id, w.direction, w.index, w.flags, w.tenant_id, w.key_id, w.at,
            w.expires_at, w.vault, CASE WHEN total <= most THEN w.box END
        FROM weighed AS w
        ON CONFLICT DO NOTHING
        RETURNING p.tenant_id, p.expires_on, p.box
    ), counted AS (
        INSERT INTO prompt_bytes AS b (tenant_id, expires_on, bytes)
        SELECT tenant_id, expires_on, sum(coalesce(octet_length(box), 0))
        FROM stored
        GROUP BY tenant_id, expires_on
        ORDER BY tenant_id, expires_on
        ON CONFLICT (tenant_id, expires_on) DO UPDATE SET bytes = b.bytes + excluded.bytes
    )
    SELECT count(*) INTO beyond FROM stored WHERE box IS NULL;
    RETURN beyond;
END
$$;

-- Removes what has expired: pieces at their moment, and the partition, with all of it that is left on the
-- disk, once its day is over. Returns how many pieces went.
CREATE FUNCTION expire_prompts() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
DECLARE
    part record;
    expired bigint := 0;
    more bigint;
BEGIN
    FOR part IN
        SELECT c.relname AS name, to_date(right(c.relname, 8), 'YYYYMMDD') AS day
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'prompt_pieces'::regclass
        ORDER BY c.relname
    LOOP
        CONTINUE WHEN part.day >= now()::date;
        EXECUTE format('SELECT count(*) FROM %I', part.name) INTO more;
        expired := expired + more;
        EXECUTE format('DROP TABLE %I', part.name);
        DELETE FROM prompt_bytes WHERE expires_on = part.day;
    END LOOP;
    WITH gone AS (
        DELETE FROM prompt_pieces
        WHERE expires_on = now()::date AND expires_at <= now()
        RETURNING tenant_id, expires_on, box
    ), less AS (
        UPDATE prompt_bytes AS b SET bytes = b.bytes - g.bytes
        FROM (
            SELECT tenant_id, expires_on, sum(coalesce(octet_length(box), 0)) AS bytes
            FROM gone GROUP BY tenant_id, expires_on
        ) AS g
        WHERE b.tenant_id = g.tenant_id AND b.expires_on = g.expires_on
    )
    SELECT count(*) INTO more FROM gone;
    RETURN expired + more;
END
$$;

-- Erases all that is kept of a tenant, and what it sent before now and comes later. Returns of how many
-- requests.
CREATE FUNCTION erase_prompts(erased uuid) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    requests bigint;
BEGIN
    INSERT INTO prompt_erasures VALUES (erased, clock_timestamp())
    ON CONFLICT (tenant_id) DO UPDATE SET erased_at = excluded.erased_at;
    WITH gone AS (DELETE FROM prompt_pieces WHERE tenant_id = erased RETURNING request_id)
    SELECT count(DISTINCT request_id) INTO requests FROM gone;
    DELETE FROM prompt_bytes WHERE tenant_id = erased;
    RETURN requests;
END
$$;

REVOKE EXECUTE ON FUNCTION
    store_prompts (uuid[], smallint[], bigint[], smallint[], uuid[], uuid[], timestamptz[], timestamptz[], text[], bytea[], bigint),
    expire_prompts (), erase_prompts (uuid)
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    store_prompts (uuid[], smallint[], bigint[], smallint[], uuid[], uuid[], timestamptz[], timestamptz[], text[], bytea[], bigint),
    expire_prompts ()
TO gateway_metering;

GRANT EXECUTE ON FUNCTION erase_prompts (uuid) TO gateway_admin;

GRANT SELECT ON prompt_pieces TO gateway_admin;

-- migrate:down

DROP FUNCTION erase_prompts (uuid);

DROP FUNCTION expire_prompts ();

DROP FUNCTION store_prompts (
    uuid[], smallint[], bigint[], smallint[], uuid[], uuid[], timestamptz[], timestamptz[], text[], bytea[], bigint
);

DROP TABLE prompt_erasures;

DROP TABLE prompt_bytes;

DROP TABLE prompt_pieces;
