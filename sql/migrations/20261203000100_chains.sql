-- migrate:up

-- Tamper evidence: every row of the ledger and of the audit is hashed into a chain when it is added, in the
-- transaction that adds it, whoever adds it. README.md in this folder says what is hashed, and how.

-- Tells this database from another one that holds the same rows.
CREATE TABLE database_identity (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);

INSERT INTO database_identity DEFAULT VALUES;

-- A chain has one writer at a time: each node's settlements, all corrections, the audit.
CREATE TABLE chains (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9-]+$')
);

-- One link of a chain: the rows that one statement has added. ids: 18 bytes a row of the ledger (request_id,
-- entry), 8 a row of the audit (id). leaves: 32 bytes a row, in the same order.
CREATE TABLE chain_batches (
    chain int NOT NULL REFERENCES chains (id),
    number bigint NOT NULL,
    at timestamptz NOT NULL,
    version smallint NOT NULL,
    ids bytea NOT NULL,
    leaves bytea NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (chain, number)
);

-- Hashes don't compress, so nothing tries to.
ALTER TABLE chain_batches ALTER COLUMN ids SET STORAGE EXTERNAL, ALTER COLUMN leaves SET STORAGE EXTERNAL;

-- Batches are added in the order of time, so this finds those of a time without an entry for each.
CREATE INDEX chain_batches_at ON chain_batches USING brin (at) WITH (pages_per_range = 16, autosummarize = on);

-- The batches of a chain by day, under one Merkle root: what stays of a day whose rows are dropped.
CREATE TABLE chain_days (
    chain int NOT NULL REFERENCES chains (id),
    day date NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL,
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (chain, day),
    CHECK (first <= last)
);

-- The root of a Merkle tree (RFC 6962) over hashes of 32 bytes, one after the other.
CREATE FUNCTION merkle_root(hashes bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    WHILE octet_length(hashes) > 32 LOOP
        SELECT string_agg(
            CASE octet_length(pair) WHEN 64 THEN sha256('\x01'::bytea || pair) ELSE pair END, '' ORDER BY i
        ) INTO hashes
        FROM (
            SELECT i, substring(hashes FROM i * 64 + 1 FOR 64) AS pair
            FROM generate_series(0, (octet_length(hashes) - 1) / 64) AS i
        ) AS p;
    END LOOP;
    RETURN hashes;
END
$$;

-- Adds a link to a chain. The lock is held until the end of the transaction, so that numbers have no gap and
-- each link follows from one that is committed; a chain's time never goes back.
CREATE FUNCTION add_link(chain_name text, row_ids bytea, row_leaves bytea) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    chain_id int;
    former record;
    next_number bigint;
    moment timestamptz;
    head text;
BEGIN
    SELECT id INTO chain_id FROM chains WHERE name = chain_name;
    IF NOT FOUND THEN
        INSERT INTO chains (name) VALUES (chain_name) ON CONFLICT DO NOTHING;
        SELECT id INTO chain_id FROM chains WHERE name = chain_name;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('chain'), chain_id);
    SELECT number, at, hash INTO former FROM chain_batches
    WHERE chain = chain_id ORDER BY number DESC LIMIT 1;
    IF NOT FOUND THEN -- all are dropped, or none has been
        SELECT last AS number, NULL::timestamptz AS at, hash INTO former FROM chain_days
        WHERE chain = chain_id ORDER BY day DESC LIMIT 1;
    END IF;
    next_number := coalesce(former.number, 0) + 1;
    moment := greatest(former.at, clock_timestamp());
    head := format(
        'batch 1 %s %s %s %s %s %s', chain_name, next_number,
        to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), octet_length(row_leaves) / 32,
        encode(merkle_root(row_leaves), 'hex'),
        encode(coalesce(former.hash, sha256(convert_to(
            format('chain %s of %s', chain_name, (SELECT id FROM database_identity)), 'UTF8'
        ))), 'hex')
    );
    INSERT INTO chain_batches (chain, number, at, version, ids, leaves, hash)
    VALUES (
        chain_id, next_number, moment, 1, row_ids, row_leaves, sha256(convert_to(head, 'UTF8'))
    );
END
$$;

-- For a statement that adds to the ledger: one link, in the chain of its node; a row's leaf is the hash of
-- what is not null of it, as JSON. Corrections have a chain of their own: they wait for other locks than
-- settlements do.
CREATE FUNCTION chain_ledger() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC'
SET extra_float_digits = 1 SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    chain_name text;
    row_ids bytea;
    row_leaves bytea;
BEGIN
    SELECT CASE WHEN min(a.entry) >= 2 THEN 'corrections' ELSE max(a.node::text) END,
        string_agg(uuid_send(a.request_id) || int2send(a.entry), '' ORDER BY a.request_id, a.entry),
        string_agg(
            sha256('\x00'::bytea || convert_to(json_strip_nulls(row_to_json(a))::text, 'UTF8')), ''
            ORDER BY a.request_id, a.entry
        )
    INTO chain_name, row_ids, row_leaves
    FROM added AS a;
    IF row_ids IS NOT NULL THEN
        PERFORM add_link(chain_name, row_ids, row_leaves);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER ledger_chained AFTER INSERT ON ledger
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION chain_ledger();

-- For a row of the audit, as its transaction commits: whoever waits for the chain then holds it no longer
-- than a commit takes, in whatever order a command writes.
CREATE FUNCTION chain_audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    row_text text;
BEGIN
    SELECT json_strip_nulls(row_to_json(r))::text INTO row_text
    FROM (
        SELECT new.id, new.at, new.actor, new.action, new.tenant_id, new.key_id, new.old::text AS old,
            new.new::text AS new
    ) AS r;
    PERFORM add_link('audit', int8send(new.id), sha256('\x00'::bytea || convert_to(row_text, 'UTF8')));
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER admin_audit_chained AFTER INSERT ON admin_audit
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chain_audit();

-- Puts the batches of days that are over under roots, once each. A batch is of the day of its time, but
-- never of one that has its root: a clock may step back.
CREATE FUNCTION close_chain_days() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    closed record;
    count int := 0;
    added int;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('close_chain_days'));
    FOR closed IN
        SELECT c.id, coalesce(max(d.last), 0) AS last, coalesce(max(d.day), '-infinity') AS day
        FROM chains AS c LEFT JOIN chain_days AS d ON d.chain = c.id
        GROUP BY c.id
    LOOP
        INSERT INTO chain_days (chain, day, first, last, root, hash)
        SELECT closed.id, b.day, min(b.number), max(b.number),
            merkle_root(string_agg(b.hash, '' ORDER BY b.number)),
            (array_agg(b.hash ORDER BY b.number DESC))[1]
        FROM (
            SELECT number, hash, greatest((at AT TIME ZONE 'UTC')::date, closed.day + 1) AS day
            FROM chain_batches WHERE chain = closed.id AND number > closed.last
        ) AS b
        WHERE b.day < (clock_timestamp() AT TIME ZONE 'UTC')::date
        GROUP BY b.day;
        GET DIAGNOSTICS added = ROW_COUNT;
        count := count + added;
    END LOOP;
    RETURN count;
END
$$;

REVOKE EXECUTE ON FUNCTION
    merkle_root (bytea), add_link (text, bytea, bytea), chain_ledger (), chain_audit (), close_chain_days ()
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION close_chain_days () TO gateway_metering;

-- Who checks the books reads what was billed and what was changed, and writes nothing.
DO $$
DECLARE
    own_role text := current_setting('role');
BEGIN
    IF to_regrole('gateway_auditor') IS NULL THEN
        CREATE ROLE gateway_auditor NOLOGIN;
    END IF;
    -- Since PostgreSQL 16 who makes a role may administer it but not act as it, so ask by trying.
    BEGIN
        PERFORM set_config('role', 'gateway_auditor', true);
        PERFORM set_config('role', own_role, true);
    EXCEPTION WHEN insufficient_privilege THEN
        EXECUTE format('GRANT gateway_auditor TO %I', current_user);
    END;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'an administrator must first run: CREATE ROLE gateway_auditor NOLOGIN; GRANT gateway_auditor TO %',
        quote_ident(current_user);
END
$$;

GRANT SELECT ON database_identity, chains, chain_batches, chain_days, ledger, admin_audit, ledger_retention
TO gateway_auditor;

COMMENT ON TABLE database_identity IS 'Tells this database from another one with the same rows.';
COMMENT ON TABLE chains IS 'The hash chains: each node''s settlements, all corrections, the audit.';
COMMENT ON TABLE chain_batches IS 'The links of the chains: which rows one statement has added, and their hashes.';
COMMENT ON TABLE chain_days IS 'The Merkle roots of days: what stays of batches whose rows are dropped.';

-- migrate:down

DROP TRIGGER admin_audit_chained ON admin_audit;

DROP TRIGGER ledger_chained ON ledger;

DROP FUNCTION close_chain_days ();

DROP FUNCTION chain_audit ();

DROP FUNCTION chain_ledger ();

DROP FUNCTION add_link (text, bytea, bytea);

DROP FUNCTION merkle_root (bytea);

DROP TABLE chain_days, chain_batches, chains, database_identity;

REVOKE ALL ON ledger, admin_audit, ledger_retention FROM gateway_auditor;
