-- name: export_snapshot()$
-- backup, first of its transaction: what pg_dump is to see, too.
SELECT pg_export_snapshot();

-- name: newest_migration()$
-- backup: the schema's age.
SELECT max(version) FROM schema_migrations;

-- name: pepper_ids()
-- backup: the peppers without which keys do not work.
SELECT DISTINCT pepper_id FROM secrets ORDER BY pepper_id;

-- name: positions()
-- backup: how far each journal was read.
SELECT DISTINCT ON (node) node, name, position, updated_at
FROM journal_files
ORDER BY node, updated_at DESC, is_finished;

-- name: tables()$
-- restore: how much is in the database already.
SELECT count(*)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname IN ('public', 'gateway_service') AND c.relkind IN ('r', 'p', 'v', 'm');

-- name: others()$
-- restore: how many other clients the database has.
SELECT count(*)
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid();

-- name: make_roles()!
-- restore: the roles that the dump grants to; they belong to the server, and no dump has them.
DO $$
DECLARE
    own_role text := current_setting('role');
    roles text[] := ARRAY[
        'gateway_service', 'gateway_authz', 'gateway_metering', 'gateway_admin', 'gateway_reader',
        'gateway_auditor'
    ];
    name text;
BEGIN
    FOREACH name IN ARRAY roles LOOP
        IF to_regrole(name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
        -- Since PostgreSQL 16 who makes a role may administer it but not act as it, so ask by trying.
        BEGIN
            PERFORM set_config('role', name, true);
            PERFORM set_config('role', own_role, true);
        EXCEPTION WHEN insufficient_privilege THEN
            EXECUTE format('GRANT %I TO %I', name, current_user);
        END;
    END LOOP;
END
$$;

-- name: outbid_counters()!
-- restore: Redis knows later versions of windows than the backup, and would not take over what is settled
-- again. A window's version rises by one with each batch: this is beyond any.
UPDATE budget_windows SET version = version + (1 << 30);
