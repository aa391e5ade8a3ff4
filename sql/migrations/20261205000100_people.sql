-- migrate:up

-- Who a request came from stands outside of the ledger, so that it can be removed: the ledger and its chains
-- have an id alone, the beginning of SHA-256 of a random salt and the text. With salt and text removed the id
-- means nothing; while they are there nobody can put another text in their place.
CREATE TABLE client_addresses (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    day date NOT NULL,
    address text NOT NULL,
    salt bytea NOT NULL CHECK (octet_length(salt) = 16)
);

CREATE INDEX client_addresses_text ON client_addresses (tenant_id, day, address);

CREATE INDEX client_addresses_day ON client_addresses (day);

CREATE TABLE end_users (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    salt bytea NOT NULL CHECK (octet_length(salt) = 16)
);

CREATE INDEX end_users_name ON end_users (tenant_id, name);

ALTER TABLE tenants ADD COLUMN erased_at timestamptz;

ALTER TABLE ledger ADD COLUMN address_id uuid, ADD COLUMN end_user_id uuid;

ALTER TABLE open_requests ADD COLUMN end_user text;

COMMENT ON TABLE client_addresses IS 'Addresses that a tenant''s requests of a day came from, for GATEWAY_ADDRESS_DAYS.';
COMMENT ON COLUMN client_addresses.id IS 'The first 16 bytes of SHA-256 of salt and address; the ledger has it.';
COMMENT ON COLUMN client_addresses.tenant_id IS 'All zeros where the credential was unknown.';
COMMENT ON COLUMN client_addresses.day IS 'The day, in UTC, of the requests'' ids.';
COMMENT ON COLUMN client_addresses.address IS 'An IPv4 or IPv6 address.';
COMMENT ON COLUMN client_addresses.salt IS 'Random, so that without this row no address can be tried against the id.';
COMMENT ON TABLE end_users IS 'The end users that clients of a tenant with --end-users kept name.';
COMMENT ON COLUMN end_users.id IS 'The first 16 bytes of SHA-256 of salt and name; the ledger has it.';
COMMENT ON COLUMN end_users.tenant_id IS 'Whose end user it is.';
COMMENT ON COLUMN end_users.name IS '`user` of OpenAI''s requests, `metadata.user_id` of Anthropic''s.';
COMMENT ON COLUMN end_users.salt IS 'Random, so that without this row no name can be tried against the id.';
COMMENT ON COLUMN tenants.erased_at IS 'When its names, prompts, end users and addresses were erased, for good.';
COMMENT ON COLUMN ledger.ip IS 'Of rows from before client_addresses alone; now address_id stands for it.';
COMMENT ON COLUMN ledger.address_id IS 'Stands for the client''s address, which client_addresses has for some days.';
COMMENT ON COLUMN ledger.end_user_id IS 'Stands for the end user that the client names; end_users has the name.';
COMMENT ON COLUMN open_requests.end_user IS 'The end user that the client names, while the request runs.';

-- The ids of addresses, in their order; one that is new to the tenant and the day is made. Two sessions may
-- each make one for the same address: both are right, and neither waits for the other.
CREATE FUNCTION address_ids(tenants_of uuid[], requests uuid[], addresses text[]) RETURNS uuid[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    unknown uuid := '00000000-0000-0000-0000-000000000000';
    ids uuid[];
    has_new boolean;
BEGIN
    FOR turn IN 1..2 LOOP
        SELECT array_agg(a.id ORDER BY g.place), bool_or(a.id IS NULL AND g.address IS NOT NULL)
        INTO ids, has_new
        FROM unnest(tenants_of, requests, addresses) WITH ORDINALITY AS g (tenant_id, request_id, address, place)
        LEFT JOIN LATERAL (
            SELECT c.id FROM client_addresses AS c
            WHERE c.tenant_id = coalesce(g.tenant_id, unknown) AND c.day = uuid7_day(g.request_id)
                AND c.address = g.address
            LIMIT 1
        ) AS a ON true;
        EXIT WHEN turn = 2 OR has_new IS NOT TRUE;
        INSERT INTO client_addresses (id, tenant_id, day, address, salt)
        SELECT encode(substring(sha256(n.salt || convert_to(n.address, 'UTF8')) FOR 16), 'hex')::uuid,
            n.tenant_id, n.day, n.address, n.salt
        FROM (
            SELECT d.*, uuid_send(gen_random_uuid()) AS salt
            FROM (
                SELECT DISTINCT coalesce(g.tenant_id, unknown) AS tenant_id, uuid7_day(g.request_id) AS day, g.address
                FROM unnest(tenants_of, requests, addresses) AS g (tenant_id, request_id, address)
                WHERE g.address IS NOT NULL
            ) AS d
            OFFSET 0
        ) AS n
        WHERE NOT EXISTS (
            SELECT FROM client_addresses AS a
            WHERE a.tenant_id = n.tenant_id AND a.day = n.day AND a.address = n.address
        ) AND NOT EXISTS (SELECT FROM tenants AS t WHERE t.id = n.tenant_id AND t.erased_at IS NOT NULL);
    END LOOP;
    RETURN ids;
END
$$;

-- Likewise the ids of end users.
CREATE FUNCTION end_user_ids(tenants_of uuid[], names text[]) RETURNS uuid[]
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

-- The release before writes addresses themselves.
CREATE FUNCTION ledger_address() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    new.address_id := (address_ids(ARRAY[new.tenant_id], ARRAY[new.request_id], ARRAY[new.ip]))[1];
    new.ip := NULL;
    RETURN new;
END
$$;

CREATE TRIGGER ledger_address BEFORE INSERT ON ledger
FOR EACH ROW WHEN (new.ip IS NOT NULL) EXECUTE FUNCTION ledger_address();

-- Removes addresses of days before a number of days, wherever a table has them, and what came late of
-- tenants that are erased; null keeps addresses. Returns how many went.
CREATE FUNCTION forget_people(kept_days int) RETURNS bigint
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

-- A line of the journal, or part of one, without addresses and names of end users.
CREATE FUNCTION without_people(line bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN decode(
    regexp_replace(
        encode(line, 'escape'), '"(ip|remote_ip|client_ip|end_user)":"([^"\\]|\\\\([^\\]|\\\\))*"', '"\1":""', 'g'
    ), 'escape'
);

REVOKE EXECUTE ON FUNCTION
    address_ids (uuid[], uuid[], text[]), end_user_ids (uuid[], text[]), ledger_address (), forget_people (int),
    without_people (bytea)
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    address_ids (uuid[], uuid[], text[]), end_user_ids (uuid[], text[]), forget_people (int)
TO gateway_metering;

GRANT SELECT ON client_addresses, end_users TO gateway_admin, gateway_auditor;

-- migrate:down

DROP TRIGGER ledger_address ON ledger;

DROP FUNCTION ledger_address ();

DROP FUNCTION forget_people (int);

DROP FUNCTION without_people (bytea);

DROP FUNCTION end_user_ids (uuid[], text[]);

DROP FUNCTION address_ids (uuid[], uuid[], text[]);

ALTER TABLE open_requests DROP COLUMN end_user;

ALTER TABLE ledger DROP COLUMN address_id, DROP COLUMN end_user_id;

ALTER TABLE tenants DROP COLUMN erased_at;

DROP TABLE end_users, client_addresses;
