-- name: learned(model, tenant)
-- learned list: what answers have shown; of a tenant that is named, also by key.
SELECT
    f.model, t.name AS tenant, k.name AS key, f.answers,
    f.prompt_bytes / nullif(f.prompt_tokens, 0) AS input_bytes_per_token,
    f.embedded_bytes / nullif(f.embedded_tokens, 0) AS embedding_bytes_per_token,
    f.text_bytes / nullif(f.text_tokens, 0) AS output_bytes_per_token,
    f.delta_tokens / nullif(f.deltas, 0) AS output_tokens_per_delta,
    f.tool_bytes / nullif(f.tool_tokens, 0) AS tool_bytes_per_token,
    1000 * f.eval_tokens / nullif(f.eval_ms, 0) AS output_tokens_per_s,
    1000 * f.evaluated_tokens / nullif(f.prompt_ms, 0) AS prompt_tokens_per_s,
    f.load_ms / nullif(f.loads, 0) AS load_ms,
    f.answer_tokens / nullif(f.generations, 0) AS answer_tokens
FROM learned_figures AS f
LEFT JOIN tenants AS t ON t.id = f.tenant_id
LEFT JOIN keys AS k ON k.id = f.scope_id
WHERE (:model::text IS NULL OR f.model = :model)
    AND (CASE WHEN :tenant::uuid IS NULL THEN f.scope_id = f.tenant_id ELSE f.tenant_id = :tenant END)
ORDER BY f.model, t.name, k.name NULLS FIRST, f.scope_id;

-- name: tenant_named(name)$
-- learned: no lock, which metering could wait for while it holds figures.
SELECT id FROM tenants WHERE name = :name;

-- name: lock_figures()!
-- learned reset: metering locks rows one by one as it learns; this waits for all of them at once.
LOCK TABLE learned_figures IN EXCLUSIVE MODE;

-- name: forget_figures(model, tenant)^
-- learned reset.
WITH forgotten AS (
    DELETE FROM learned_figures
    WHERE (:model::text IS NULL OR model = :model) AND (:tenant::uuid IS NULL OR tenant_id = :tenant)
    RETURNING model, scope_id, tenant_id, answers
)

SELECT
    coalesce(array_agg(DISTINCT model ORDER BY model), '{}') AS models,
    coalesce(sum(answers) FILTER (WHERE scope_id = tenant_id), 0)::bigint AS answers
FROM forgotten;
