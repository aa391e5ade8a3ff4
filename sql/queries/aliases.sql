-- name: list_aliases()
-- authz, once a second: the names by which clients ask for models.
SELECT tenant_id, pattern, model FROM aliases;

-- name: set_alias(tenant, pattern, model)$
-- alias set: returns the model that the name meant before, null if none.
WITH earlier AS (
    SELECT model FROM aliases WHERE tenant_id IS NOT DISTINCT FROM :tenant::uuid AND pattern = :pattern
), written AS (
    INSERT INTO aliases (tenant_id, pattern, model)
    VALUES (:tenant::uuid, :pattern, :model)
    ON CONFLICT (tenant_id, pattern) DO UPDATE SET model = excluded.model
)
SELECT model FROM earlier;

-- name: remove_alias(tenant, pattern)$
-- alias remove: returns the model that the name meant, null if there was no such alias.
DELETE FROM aliases
WHERE tenant_id IS NOT DISTINCT FROM :tenant::uuid AND pattern = :pattern
RETURNING model;

-- name: shown_aliases()
-- alias list: those of all tenants first.
SELECT t.name AS tenant, a.pattern, a.model
FROM aliases AS a LEFT JOIN tenants AS t ON t.id = a.tenant_id
ORDER BY t.name NULLS FIRST, a.pattern;
