-- migrate:up

-- The sums of usage_daily are by the tenant's day from now on, as its budgets are; what the ledger still
-- has is summed again, what it has no longer stays under its UTC day.
DELETE FROM usage_daily
WHERE day >= (
    SELECT min(to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD'))
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'ledger'::regclass
);

INSERT INTO usage_daily AS u (day, tenant_id, key_id, model, requests, input_tokens, output_tokens)
SELECT
    coalesce(day, uuid7_day(request_id)), tenant_id, coalesce(key_id, tenant_id), coalesce(model, ''),
    count(*) FILTER (WHERE entry = 0 AND backend IS NOT NULL), sum(input_tokens), sum(output_tokens)
FROM ledger
WHERE tenant_id IS NOT NULL
    AND (input_tokens <> 0 OR output_tokens <> 0 OR entry = 0 AND backend IS NOT NULL)
GROUP BY 1, 2, 3, 4
ON CONFLICT (day, key_id, model) DO UPDATE
SET requests = u.requests + excluded.requests,
    input_tokens = u.input_tokens + excluded.input_tokens,
    output_tokens = u.output_tokens + excluded.output_tokens;

-- migrate:down

-- The sums stay as they are: every token is in them once, whichever day it is under.
