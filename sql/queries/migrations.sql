-- name: applied_migrations()
-- migrate: what the database has, of releases that this program does not know, too; as its owner.
SELECT version FROM schema_migrations ORDER BY version;
