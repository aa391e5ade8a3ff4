-- migrate:up

-- What people and programs make reports of, under names that last; they take the place of report_entries,
-- report_days and report_windows. No view has an address, a credential or a handle.
DROP VIEW report_windows, report_days, report_entries;

-- A row is the first entry of a request, with the sums of all its entries; what was credited to a tenant has no
-- entry before its own.
CREATE VIEW v_requests AS
SELECT
    l.request_id, l.at, t.name AS tenant, k.name AS key, l.day, l.month, l.model, l.model_asked, l.backend, l.path,
    l.stream, l.outcome, l.reason, l.status,
    l.input_tokens + e.input_tokens AS input_tokens,
    l.output_tokens + e.output_tokens AS output_tokens,
    l.input_tokens + e.input_tokens + l.output_tokens + e.output_tokens AS tokens,
    l.usage_source, e.entries > 0 OR l.entry > 1 AS is_corrected, l.entry = 0 AND l.backend IS NOT NULL AS is_counted,
    l.ttft_ms, l.duration_ms, l.load_ms, l.prompt_eval_ms, l.eval_ms, l.trace_id
FROM ledger AS l
CROSS JOIN LATERAL (
    SELECT
        coalesce(sum(a.input_tokens), 0)::bigint AS input_tokens,
        coalesce(sum(a.output_tokens), 0)::bigint AS output_tokens,
        count(*) FILTER (WHERE a.entry > 1) AS entries
    FROM ledger AS a
    WHERE a.request_id = l.request_id AND a.entry > l.entry
) AS e
LEFT JOIN tenants AS t ON t.id = l.tenant_id
LEFT JOIN keys AS k ON k.id = l.key_id
WHERE l.entry = 0
    OR NOT EXISTS (SELECT FROM ledger AS f WHERE f.request_id = l.request_id AND f.entry < l.entry);

CREATE VIEW v_usage_daily_local AS
SELECT
    u.day, t.timezone, t.name AS tenant, k.name AS key, u.model, u.requests, u.input_tokens, u.output_tokens,
    u.input_tokens + u.output_tokens AS tokens
FROM usage_daily AS u
JOIN tenants AS t ON t.id = u.tenant_id
LEFT JOIN keys AS k ON k.id = u.key_id;

-- The window of now of every budget, used or not, and every window that was used.
CREATE VIEW v_budgets AS
WITH scopes AS (
    SELECT id AS scope_id, id AS tenant_id, tokens_per_day, tokens_per_month, tokens_total FROM tenants
    UNION ALL
    SELECT id, tenant_id, tokens_per_day, tokens_per_month, tokens_total FROM keys WHERE state <> 'revoked'
), present AS (
    SELECT s.scope_id, s.tenant_id, p.period, p.start, p.most
    FROM scopes AS s
    JOIN tenants AS t ON t.id = s.tenant_id
    CROSS JOIN LATERAL (SELECT (now() AT TIME ZONE t.timezone)::date AS today) AS d
    CROSS JOIN LATERAL (
        VALUES
        ('day', d.today, s.tokens_per_day),
        ('month', date_trunc('month', d.today)::date, s.tokens_per_month),
        ('total', date '1970-01-01', s.tokens_total)
    ) AS p (period, start, most)
    WHERE p.most IS NOT NULL
)
SELECT
    t.name AS tenant, k.name AS key, b.period, b.start,
    CASE b.period WHEN 'day' THEN b.start + 1 WHEN 'month' THEN (b.start + interval '1 month')::date END AS until,
    t.timezone, b.most AS limit_tokens, b.used AS used_tokens, greatest(b.most - b.used, 0) AS left_tokens
FROM (
    SELECT
        coalesce(p.scope_id, w.scope_id) AS scope_id, coalesce(p.tenant_id, w.tenant_id) AS tenant_id,
        coalesce(p.period, w.period) AS period, coalesce(p.start, w.start) AS start, p.most,
        coalesce(w.used, 0) AS used
    FROM present AS p
    FULL JOIN budget_windows AS w ON w.scope_id = p.scope_id AND w.period = p.period AND w.start = p.start
) AS b
JOIN tenants AS t ON t.id = b.tenant_id
LEFT JOIN keys AS k ON k.id = b.scope_id;

GRANT SELECT ON v_requests, v_usage_daily_local, v_budgets TO gateway_reader;

COMMENT ON VIEW v_requests IS 'What was asked and billed, a row for each request, with corrections taken off; credits to a tenant are rows of their own. The sum of tokens is the bill.';
COMMENT ON COLUMN v_requests.request_id IS 'The X-Request-Id, a UUIDv7. A range of it reads its days alone: request_id >= uuid7_floor(now() - interval ''7 days'').';
COMMENT ON COLUMN v_requests.at IS 'When it was settled.';
COMMENT ON COLUMN v_requests.tenant IS 'Name of the tenant; null where a credential was unknown.';
COMMENT ON COLUMN v_requests.key IS 'Name of the key; null where unknown, or for a credit to the tenant alone.';
COMMENT ON COLUMN v_requests.day IS 'The day, in the tenant''s time zone, whose budget paid; null for what was never admitted.';
COMMENT ON COLUMN v_requests.month IS 'The first day of the month whose budget paid; null for what was never admitted.';
COMMENT ON COLUMN v_requests.model IS 'The model that ran, or was asked for; null where none was named.';
COMMENT ON COLUMN v_requests.model_asked IS 'What the client called the model, where that was an alias of it.';
COMMENT ON COLUMN v_requests.backend IS 'The backend that was asked; null if none was.';
COMMENT ON COLUMN v_requests.path IS 'Path as sent.';
COMMENT ON COLUMN v_requests.stream IS 'Whether the answer was a stream.';
COMMENT ON COLUMN v_requests.outcome IS 'How the request ended.';
COMMENT ON COLUMN v_requests.reason IS 'Why it was refused or cut, or why the tenant was credited.';
COMMENT ON COLUMN v_requests.status IS 'HTTP status that the client got.';
COMMENT ON COLUMN v_requests.input_tokens IS 'Input tokens billed, corrections taken off.';
COMMENT ON COLUMN v_requests.output_tokens IS 'Output tokens billed, corrections taken off.';
COMMENT ON COLUMN v_requests.tokens IS 'Input plus output.';
COMMENT ON COLUMN v_requests.usage_source IS 'How the tokens of its first entry are known: reported, counted, progress, corrected or none.';
COMMENT ON COLUMN v_requests.is_corrected IS 'Whether an administrator corrected it.';
COMMENT ON COLUMN v_requests.is_counted IS 'Whether it counts as a request in sums: a backend was asked.';
COMMENT ON COLUMN v_requests.ttft_ms IS 'Time to the first byte of the answer.';
COMMENT ON COLUMN v_requests.duration_ms IS 'Time from the request to its end.';
COMMENT ON COLUMN v_requests.load_ms IS 'Time to load the model, as the backend reported.';
COMMENT ON COLUMN v_requests.prompt_eval_ms IS 'Time for the prompt, as the backend reported.';
COMMENT ON COLUMN v_requests.eval_ms IS 'Time for the output, as the backend reported.';
COMMENT ON COLUMN v_requests.trace_id IS 'The trace that client or Caddy put the request into; null without one.';

COMMENT ON VIEW v_usage_daily_local IS 'What was billed per day of each tenant''s own time zone, by key and model; it stays when the ledger''s days are dropped.';
COMMENT ON COLUMN v_usage_daily_local.day IS 'A day in the tenant''s time zone; in UTC for what was never admitted.';
COMMENT ON COLUMN v_usage_daily_local.timezone IS 'The tenant''s time zone as it is now.';
COMMENT ON COLUMN v_usage_daily_local.tenant IS 'Name of the tenant.';
COMMENT ON COLUMN v_usage_daily_local.key IS 'Name of the key; null for credits to the tenant alone.';
COMMENT ON COLUMN v_usage_daily_local.model IS 'Name of the model as sent; empty where no record says which.';
COMMENT ON COLUMN v_usage_daily_local.requests IS 'Requests for which a backend was asked.';
COMMENT ON COLUMN v_usage_daily_local.input_tokens IS 'Input tokens billed, corrections taken off.';
COMMENT ON COLUMN v_usage_daily_local.output_tokens IS 'Output tokens billed, corrections taken off.';
COMMENT ON COLUMN v_usage_daily_local.tokens IS 'Input plus output.';

COMMENT ON VIEW v_budgets IS 'Every budget of tenants and keys in the window of now, used or not, and every window that was used.';
COMMENT ON COLUMN v_budgets.tenant IS 'Name of the tenant.';
COMMENT ON COLUMN v_budgets.key IS 'Name of the key; null for the tenant''s own budget.';
COMMENT ON COLUMN v_budgets.period IS 'day, month or total.';
COMMENT ON COLUMN v_budgets.start IS 'First day of the window, in the tenant''s time zone; 1970-01-01 of a total.';
COMMENT ON COLUMN v_budgets.until IS 'First day after the window, at whose midnight it starts anew; null of a total.';
COMMENT ON COLUMN v_budgets.timezone IS 'The tenant''s time zone as it is now.';
COMMENT ON COLUMN v_budgets.limit_tokens IS 'The budget; null without one, and of windows that are over.';
COMMENT ON COLUMN v_budgets.used_tokens IS 'Tokens used, input plus output, corrections taken off; what runs is not in it yet.';
COMMENT ON COLUMN v_budgets.left_tokens IS 'What is left of the budget; null where there is no limit.';

-- An export since the last one goes by the links of the chains, which are added in one order.
GRANT SELECT ON database_identity, chains TO gateway_admin;

GRANT SELECT (chain, number, ids) ON chain_batches TO gateway_admin;

GRANT SELECT (chain, last) ON chain_days TO gateway_admin;

-- migrate:down

REVOKE SELECT ON database_identity, chains FROM gateway_admin;

REVOKE SELECT (chain, number, ids) ON chain_batches FROM gateway_admin;

REVOKE SELECT (chain, last) ON chain_days FROM gateway_admin;

DROP VIEW v_budgets, v_usage_daily_local, v_requests;

CREATE VIEW report_entries AS
SELECT
    l.at, t.name AS tenant, k.name AS key, l.day, l.month, l.request_id, l.entry, l.model, l.backend, l.path,
    l.outcome, l.reason, l.actor, l.status, l.input_tokens, l.output_tokens,
    l.input_tokens + l.output_tokens AS tokens, l.usage_source, l.trace_id
FROM ledger AS l
LEFT JOIN tenants AS t ON t.id = l.tenant_id
LEFT JOIN keys AS k ON k.id = l.key_id;

CREATE VIEW report_days AS
SELECT
    u.day, t.name AS tenant, k.name AS key, u.model, u.requests, u.input_tokens, u.output_tokens,
    u.input_tokens + u.output_tokens AS tokens
FROM usage_daily AS u
JOIN tenants AS t ON t.id = u.tenant_id
LEFT JOIN keys AS k ON k.id = u.key_id;

CREATE VIEW report_windows AS
SELECT t.name AS tenant, k.name AS key, w.period, w.start, w.used AS tokens
FROM budget_windows AS w
JOIN tenants AS t ON t.id = w.tenant_id
LEFT JOIN keys AS k ON k.id = w.scope_id;

GRANT SELECT ON report_entries, report_days, report_windows TO gateway_reader;
