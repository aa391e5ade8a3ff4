-- name: server()^
-- doctor: the server, and how many of its connections are left to this database.
SELECT
    current_setting('server_version') AS version,
    current_setting('server_version_num')::int AS number,
    pg_is_in_recovery() AS is_standby,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int AS most_connections,
    (
        SELECT count(*)
        FROM pg_stat_activity
        WHERE datname <> current_database() AND backend_type = 'client backend'
    ) AS foreign_connections;

-- name: clock()$
-- doctor: the clock of Postgres, to compare.
SELECT clock_timestamp();

-- name: applied()
-- doctor: the migrations that the database has.
SELECT version FROM schema_migrations;

-- name: roles(roles)
-- doctor: which of the roles there are.
SELECT rolname AS role FROM pg_roles WHERE rolname = ANY(:roles::text[]);

-- name: excess(roles)
-- doctor: rights that no migration gives: a role's own, everybody's, and all that rewrites what was billed.
SELECT r.rolname AS role, own.name AS excess
FROM pg_roles AS r
CROSS JOIN LATERAL (
    VALUES
    (r.rolsuper, 'SUPERUSER'), (r.rolcreaterole, 'CREATEROLE'), (r.rolcreatedb, 'CREATEDB'),
    (r.rolbypassrls, 'BYPASSRLS'), (r.rolcanlogin, 'LOGIN'),
    (has_schema_privilege(r.oid, 'public', 'CREATE'), 'CREATE ON SCHEMA public')
) AS own (is_given, name)
WHERE r.rolname = ANY(:roles::text[]) AND own.is_given
UNION ALL
SELECT r.rolname, 'the rights of ' || given.rolname
FROM pg_auth_members AS m
JOIN pg_roles AS r ON r.oid = m.member
JOIN pg_roles AS given ON given.oid = m.roleid
WHERE r.rolname = ANY(:roles::text[])
UNION ALL
SELECT coalesce(r.rolname, 'everybody'), a.privilege_type || ' ON ' || a.relname
FROM (
    SELECT c.relname, c.relowner, x.grantee, x.privilege_type
    FROM pg_class AS c
    CROSS JOIN aclexplode(c.relacl) AS x
    WHERE c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT c.relname, c.relowner, x.grantee, x.privilege_type
    FROM pg_class AS c
    JOIN pg_attribute AS t ON t.attrelid = c.oid
    CROSS JOIN aclexplode(t.attacl) AS x
    WHERE c.relnamespace = 'public'::regnamespace
) AS a
LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE a.grantee <> a.relowner AND (
    a.grantee = 0
    OR (a.relname ~ '^(ledger$|ledger_[0-9]|admin_audit$)' AND a.privilege_type NOT IN ('SELECT', 'INSERT'))
    OR (a.relname ~ '^(chain|database_identity)' AND a.privilege_type <> 'SELECT')
)
ORDER BY 1, 2;

-- name: nodes()
-- doctor: the nodes whose journals must be read.
SELECT node, eof_at FROM nodes WHERE retired_at IS NULL ORDER BY created_at;

-- name: backup_at()$
-- doctor: when the last backup was made.
SELECT max(at) FROM admin_audit WHERE action = 'backup_made';

-- name: take_turn()$
-- doctor --prove: true unless another run holds it; it is held as long as the connection is open.
SELECT pg_try_advisory_lock(hashtext('doctor --prove'));

-- name: billed(request_id)^
-- doctor --prove: how often a request is in the ledger, and for how many tokens.
SELECT
    count(*) AS entries, coalesce(sum(input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(output_tokens), 0)::bigint AS output_tokens
FROM ledger
WHERE request_id = :request_id;

-- name: charged(ids)$
-- doctor --prove: how many of these requests have a price, or a backend.
SELECT count(*)
FROM ledger
WHERE request_id = ANY(:ids::uuid[]) AND (backend IS NOT NULL OR input_tokens + output_tokens <> 0);
