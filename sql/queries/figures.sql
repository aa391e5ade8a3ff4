-- name: figures(models, scopes)
-- metering.settle: what the answers of keys and tenants have shown of models.
SELECT model, scope_id, f.tenant_id, f.answers, f.prompt_bytes, f.prompt_tokens, f.embedded_bytes,
    f.embedded_tokens, f.text_bytes, f.text_tokens, f.deltas, f.delta_tokens, f.tool_bytes, f.tool_tokens,
    f.eval_ms, f.eval_tokens, f.prompt_ms, f.evaluated_tokens, f.load_ms, f.loads, f.answer_tokens, f.generations
FROM unnest(:models::text[], :scopes::uuid[]) AS w (model, scope_id)
JOIN learned_figures AS f USING (model, scope_id);

-- name: medians(models, tenants)
-- metering.settle: a model's own properties, over tenants of which none can move them alone.
SELECT model,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY delta_tokens / nullif(deltas, 0)) AS output_tokens_per_delta,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY eval_ms / nullif(eval_tokens, 0)) AS output_ms_per_token,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY prompt_ms / nullif(evaluated_tokens, 0)) AS prompt_ms_per_token,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY load_ms / nullif(loads, 0)) AS load_ms
FROM learned_figures
WHERE model = ANY(:models::text[]) AND scope_id = tenant_id
GROUP BY model
HAVING count(*) >= :tenants;

-- name: learn(models, scopes, tenants, answers, sums)!
-- metering.settle: add to sums; what is older than about a thousand answers counts half.
INSERT INTO learned_figures AS f (
    model, scope_id, tenant_id, answers, prompt_bytes, prompt_tokens, embedded_bytes, embedded_tokens,
    text_bytes, text_tokens, deltas, delta_tokens, tool_bytes, tool_tokens, eval_ms, eval_tokens, prompt_ms,
    evaluated_tokens, load_ms, loads, answer_tokens, generations
)
SELECT l.model, l.scope_id, l.tenant_id, l.answers,
    s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11], s[12], s[13], s[14], s[15], s[16],
    s[17], s[18]
FROM unnest(:models::text[], :scopes::uuid[], :tenants::uuid[], :answers::bigint[], :sums::text[])
    AS l (model, scope_id, tenant_id, answers, sums)
CROSS JOIN LATERAL (SELECT l.sums::double precision[]) AS a (s)
ORDER BY l.model, l.scope_id
ON CONFLICT (model, scope_id) DO UPDATE
SET (
    answers, prompt_bytes, prompt_tokens, embedded_bytes, embedded_tokens, text_bytes, text_tokens, deltas,
    delta_tokens, tool_bytes, tool_tokens, eval_ms, eval_tokens, prompt_ms, evaluated_tokens, load_ms, loads,
    answer_tokens, generations
) = (
    SELECT
        excluded.answers + f.answers / part, excluded.prompt_bytes + f.prompt_bytes / part,
        excluded.prompt_tokens + f.prompt_tokens / part, excluded.embedded_bytes + f.embedded_bytes / part,
        excluded.embedded_tokens + f.embedded_tokens / part, excluded.text_bytes + f.text_bytes / part,
        excluded.text_tokens + f.text_tokens / part, excluded.deltas + f.deltas / part,
        excluded.delta_tokens + f.delta_tokens / part, excluded.tool_bytes + f.tool_bytes / part,
        excluded.tool_tokens + f.tool_tokens / part, excluded.eval_ms + f.eval_ms / part,
        excluded.eval_tokens + f.eval_tokens / part, excluded.prompt_ms + f.prompt_ms / part,
        excluded.evaluated_tokens + f.evaluated_tokens / part, excluded.load_ms + f.load_ms / part,
        excluded.loads + f.loads / part, excluded.answer_tokens + f.answer_tokens / part,
        excluded.generations + f.generations / part
    FROM (SELECT CASE WHEN f.answers >= 1000 THEN 2 ELSE 1 END) AS h (part)
);
