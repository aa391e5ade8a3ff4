-- migrate:up

-- The trace of a request: 32 hex digits of its W3C traceparent. Text, so that it reads as it does elsewhere.
ALTER TABLE ledger ADD COLUMN trace_id text;

ALTER TABLE open_requests ADD COLUMN trace_id text;

COMMENT ON COLUMN ledger.trace_id IS 'The trace that client or Caddy put the request into; null without one.';
COMMENT ON COLUMN open_requests.trace_id IS 'Likewise.';

CREATE OR REPLACE VIEW report_entries AS
SELECT
    l.at, t.name AS tenant, k.name AS key, l.day, l.month, l.request_id, l.entry, l.model, l.backend, l.path,
    l.outcome, l.reason, l.actor, l.status, l.input_tokens, l.output_tokens,
    l.input_tokens + l.output_tokens AS tokens, l.usage_source, l.trace_id
FROM ledger AS l
LEFT JOIN tenants AS t ON t.id = l.tenant_id
LEFT JOIN keys AS k ON k.id = l.key_id;

-- migrate:down

DROP VIEW report_entries;

CREATE VIEW report_entries AS
SELECT
    l.at, t.name AS tenant, k.name AS key, l.day, l.month, l.request_id, l.entry, l.model, l.backend, l.path,
    l.outcome, l.reason, l.actor, l.status, l.input_tokens, l.output_tokens,
    l.input_tokens + l.output_tokens AS tokens, l.usage_source
FROM ledger AS l
LEFT JOIN tenants AS t ON t.id = l.tenant_id
LEFT JOIN keys AS k ON k.id = l.key_id;

GRANT SELECT ON report_entries TO gateway_reader;

COMMENT ON VIEW report_entries IS 'The ledger with names: one row per entry of a request.';
COMMENT ON COLUMN report_entries.tenant IS 'Name of the tenant; null where a credential was unknown.';
COMMENT ON COLUMN report_entries.key IS 'Name of the key; null where unknown, or for a credit to the tenant alone.';
COMMENT ON COLUMN report_entries.day IS 'The day, in the tenant''s time zone, whose budget paid.';
COMMENT ON COLUMN report_entries.tokens IS 'Input plus output.';

ALTER TABLE open_requests DROP COLUMN trace_id;

ALTER TABLE ledger DROP COLUMN trace_id;
