-- migrate:up

-- What was billed, with names in place of ids, for whoever makes reports: no address, no credential.
CREATE VIEW report_entries AS
SELECT
    l.at, t.name AS tenant, k.name AS key, l.day, l.month, l.request_id, l.entry, l.model, l.backend, l.path,
    l.outcome, l.reason, l.actor, l.status, l.input_tokens, l.output_tokens,
    l.input_tokens + l.output_tokens AS tokens, l.usage_source
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

COMMENT ON VIEW report_entries IS 'The ledger with names: one row per entry of a request.';
COMMENT ON COLUMN report_entries.tenant IS 'Name of the tenant; null where a credential was unknown.';
COMMENT ON COLUMN report_entries.key IS 'Name of the key; null where unknown, or for a credit to the tenant alone.';
COMMENT ON COLUMN report_entries.day IS 'The day, in the tenant''s time zone, whose budget paid.';
COMMENT ON COLUMN report_entries.tokens IS 'Input plus output.';
COMMENT ON VIEW report_days IS 'What was billed per day, tenant, key and model.';
COMMENT ON COLUMN report_days.day IS 'A day in the tenant''s time zone.';
COMMENT ON COLUMN report_days.key IS 'Name of the key; null for credits to the tenant alone.';
COMMENT ON COLUMN report_days.model IS 'Name of the model; empty where no record says which.';
COMMENT ON VIEW report_windows IS 'What tenants and keys have used of their days, months and in total.';
COMMENT ON COLUMN report_windows.key IS 'Name of the key; null for the tenant''s own window.';
COMMENT ON COLUMN report_windows.start IS 'First day of the window, in the tenant''s time zone; 1970-01-01 of a total.';
COMMENT ON COLUMN report_windows.tokens IS 'Tokens used, input plus output, corrections taken off.';

COMMENT ON TABLE tenants IS 'Who may use the gateway, with limits on all of their keys together.';
COMMENT ON TABLE keys IS 'What a tenant hands out; limits and allowlists belong to the key, never to a secret.';
COMMENT ON TABLE secrets IS 'API keys as clients present them: a public handle, a keyed tag and an Argon2id hash.';
COMMENT ON TABLE nodes IS 'Each Caddy''s journal, and until when it was read.';
COMMENT ON TABLE journal_files IS 'How far each file of a journal is read.';
COMMENT ON TABLE journal_sequences IS 'Which line numbers of a Caddy process were read, and which are lost.';
COMMENT ON TABLE open_requests IS 'Requests that run: their open line is committed, their record is not.';
COMMENT ON TABLE ledger IS 'What was billed: rows are added and never changed; the sum of a request''s entries is its bill.';
COMMENT ON TABLE unpublished IS 'The outbox: ledger rows that Redis does not know yet.';
COMMENT ON TABLE budget_windows IS 'What a tenant or a key has used of a day, a month and in total.';
COMMENT ON TABLE usage_daily IS 'The ledger summed by the tenant''s day, key and model.';
COMMENT ON TABLE refusals_per_minute IS 'Refused requests beyond what is worth a row each.';
COMMENT ON TABLE model_ratios IS 'What answers have taught about a model.';
COMMENT ON TABLE dead_letters IS 'Journal lines that were not understood.';
COMMENT ON TABLE ledger_retention IS 'How many days of the ledger are kept, and the oldest that may still be billed.';
COMMENT ON TABLE admin_audit IS 'Who changed what, in the transaction of the change.';

COMMENT ON COLUMN ledger.request_id IS 'UUIDv7 that the guard made; a credit to a tenant has one of its own.';
COMMENT ON COLUMN ledger.entry IS '0 settles the request, 1 adjusts it, 2 and up are corrections.';
COMMENT ON COLUMN ledger.at IS 'When the entry was written.';
COMMENT ON COLUMN ledger.node IS 'The journal it came from.';
COMMENT ON COLUMN ledger.boot IS 'The Caddy process that served it.';
COMMENT ON COLUMN ledger.seq IS 'Its line''s number within that process.';
COMMENT ON COLUMN ledger.ip IS 'The client''s address.';
COMMENT ON COLUMN ledger.lookup IS 'Public handle of the credential.';
COMMENT ON COLUMN ledger.tenant_id IS 'The tenant that pays; null where the credential is unknown.';
COMMENT ON COLUMN ledger.key_id IS 'The key that pays; null where unknown, or for a credit to the tenant alone.';
COMMENT ON COLUMN ledger.method IS 'HTTP method.';
COMMENT ON COLUMN ledger.path IS 'Path as sent.';
COMMENT ON COLUMN ledger.model IS 'Model as sent.';
COMMENT ON COLUMN ledger.backend IS 'The backend that was asked; null if none was.';
COMMENT ON COLUMN ledger.stream IS 'Whether the answer was a stream.';
COMMENT ON COLUMN ledger.outcome IS 'How the request ended.';
COMMENT ON COLUMN ledger.reason IS 'Why it was refused or cut, or why it was corrected.';
COMMENT ON COLUMN ledger.status IS 'HTTP status that the client got.';
COMMENT ON COLUMN ledger.upstream_status IS 'HTTP status of the backend.';
COMMENT ON COLUMN ledger.reserved_input IS 'Input tokens held while it ran.';
COMMENT ON COLUMN ledger.reserved_output IS 'Output tokens held while it ran.';
COMMENT ON COLUMN ledger.day IS 'The day, in the tenant''s time zone, whose window pays.';
COMMENT ON COLUMN ledger.month IS 'The first day of the month whose window pays.';
COMMENT ON COLUMN ledger.max_output IS 'Most output tokens that it was allowed.';
COMMENT ON COLUMN ledger.terminal IS 'Whether the answer''s last frame was seen.';
COMMENT ON COLUMN ledger.reported_input_tokens IS 'As the backend reported.';
COMMENT ON COLUMN ledger.reported_output_tokens IS 'As the backend reported.';
COMMENT ON COLUMN ledger.cached_tokens IS 'Input tokens read from a cache, as reported.';
COMMENT ON COLUMN ledger.deltas IS 'Frames with content that were counted.';
COMMENT ON COLUMN ledger.output_bytes IS 'Bytes of content that were counted.';
COMMENT ON COLUMN ledger.prompt_bytes IS 'Bytes of text in the prompt.';
COMMENT ON COLUMN ledger.images IS 'Images in the prompt.';
COMMENT ON COLUMN ledger.ttft_ms IS 'Time to the first byte of the answer.';
COMMENT ON COLUMN ledger.duration_ms IS 'Time from the request to its end.';
COMMENT ON COLUMN ledger.load_ms IS 'Time to load the model, as reported.';
COMMENT ON COLUMN ledger.prompt_eval_ms IS 'Time for the prompt, as reported.';
COMMENT ON COLUMN ledger.eval_ms IS 'Time for the output, as reported.';
COMMENT ON COLUMN ledger.input_tokens IS 'Input tokens billed by this entry.';
COMMENT ON COLUMN ledger.output_tokens IS 'Output tokens billed by this entry.';
COMMENT ON COLUMN ledger.overrun_tokens IS 'Tokens billed beyond what could be held: alarmed, ordinarily 0.';
COMMENT ON COLUMN ledger.usage_source IS 'Where the billed figures come from.';
COMMENT ON COLUMN ledger.input_bytes_per_token IS 'Ratio by which input was counted.';
COMMENT ON COLUMN ledger.output_bytes_per_token IS 'Ratio by which output was counted.';
COMMENT ON COLUMN ledger.output_tokens_per_delta IS 'Ratio by which frames were counted.';
COMMENT ON COLUMN ledger.output_tokens_per_s IS 'Rate by which time was counted.';
COMMENT ON COLUMN ledger.actor IS 'Who corrected; null for what metering bills.';

COMMENT ON COLUMN usage_daily.day IS 'The tenant''s day; in UTC for what was never admitted.';
COMMENT ON COLUMN usage_daily.tenant_id IS 'The tenant that pays.';
COMMENT ON COLUMN usage_daily.key_id IS 'The key that pays; the tenant''s own id for credits to the tenant alone.';
COMMENT ON COLUMN usage_daily.model IS 'Name of the model; empty where no record says which.';
COMMENT ON COLUMN usage_daily.requests IS 'Requests for which a backend was asked.';
COMMENT ON COLUMN usage_daily.input_tokens IS 'Input tokens billed, corrections taken off.';
COMMENT ON COLUMN usage_daily.output_tokens IS 'Output tokens billed, corrections taken off.';

COMMENT ON COLUMN budget_windows.scope_id IS 'A tenant or a key.';
COMMENT ON COLUMN budget_windows.period IS 'day, month or total.';
COMMENT ON COLUMN budget_windows.start IS 'First day, in the tenant''s time zone; 1970-01-01 of a total.';
COMMENT ON COLUMN budget_windows.tenant_id IS 'The tenant, also of a key''s window.';
COMMENT ON COLUMN budget_windows.used IS 'Tokens used, input plus output.';
COMMENT ON COLUMN budget_windows.version IS 'Rises with every change; Redis takes a total only with a higher one.';

-- migrate:down

DROP VIEW report_windows, report_days, report_entries;
