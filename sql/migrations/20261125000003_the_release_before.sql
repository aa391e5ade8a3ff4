-- migrate:up

-- What the release before goes on with while this one replaces it, and after a way back: its role keeps
-- its rights, and finds under its own name the tables to which columns are added below. It writes whole
-- rows, so it must see the columns that it knows and no others: by PostgreSQL's search path, "$user" comes
-- before public. The next release drops this schema and those rights.
CREATE SCHEMA gateway_service;

CREATE VIEW gateway_service.open_requests AS
SELECT request_id, node, boot, tenant_id, key_id, reserved_input, reserved_output, day, month, deadline
FROM open_requests;

CREATE VIEW gateway_service.ledger AS
SELECT
    request_id, entry, at, node, boot, seq, ip, lookup, tenant_id, key_id, method, path, model, backend, stream,
    outcome, reason, status, upstream_status, reserved_input, reserved_output, day, month, max_output, terminal,
    reported_input_tokens, reported_output_tokens, cached_tokens, deltas, output_bytes, prompt_bytes, images,
    ttft_ms, duration_ms, load_ms, prompt_eval_ms, eval_ms, input_tokens, output_tokens, overrun_tokens,
    usage_source, input_bytes_per_token, output_bytes_per_token, output_tokens_per_delta, output_tokens_per_s
FROM ledger;

GRANT USAGE ON SCHEMA gateway_service TO gateway_service;

GRANT SELECT, INSERT, DELETE ON gateway_service.open_requests TO gateway_service;

GRANT SELECT, INSERT ON gateway_service.ledger TO gateway_service;

-- As in the_bill, for a database that has lost them since.
GRANT SELECT, INSERT ON ledger, admin_audit TO gateway_service;

GRANT SELECT, INSERT, UPDATE ON tenants, keys, secrets, nodes, budget_windows, usage_daily, dead_letters,
    model_ratios TO gateway_service;

GRANT SELECT, INSERT, UPDATE, DELETE ON journal_files, journal_sequences, open_requests, unpublished,
    refusals_per_minute TO gateway_service;

GRANT EXECUTE ON FUNCTION ensure_ledger_partition (date), drop_ledger_partition (date) TO gateway_service;

-- migrate:down

DROP SCHEMA gateway_service CASCADE;
