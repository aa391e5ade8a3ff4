-- name: owners(lookups)
-- metering.settle: whose a credential's handle is, revoked or not.
SELECT s.lookup, k.tenant_id, k.id AS key_id
FROM secrets AS s
JOIN keys AS k ON k.id = s.key_id
WHERE s.lookup = ANY(:lookups::text[]);

-- name: ensure_partition(day)$
-- metering.settle: before rows of a day are inserted.
SELECT ensure_ledger_partition(:day);

-- name: close_chain_days()$
-- metering.upkeep: puts the links of days that are over under roots, once; returns how many.
SELECT close_chain_days();

-- name: forget_people(days)$
-- metering.upkeep: removes addresses that are kept no longer; returns how many rows went.
SELECT forget_people(:days::int);

-- name: oldest_day()$
-- metering.settle: the oldest day that may still be billed.
SELECT oldest_ledger_day();

-- name: settled(ids, first, until)
-- metering.settle: which of these requests the ledger has; all of one day.
SELECT request_id
FROM ledger
WHERE request_id = ANY(:ids::uuid[]) AND entry = 0
    AND request_id >= :first::uuid AND request_id < :until::uuid;

-- name: add_open(request_ids, nodes, boots, tenant_ids, key_ids, reserved_inputs, reserved_outputs, days, months, deadlines, ips, paths, models, backends, streams, ceiling_inputs, ceiling_outputs, prompt_bytes, images, queued, models_asked, trace_ids, end_users)!
-- metering.settle: open lines whose record is not in the same batch, nor in the ledger already.
INSERT INTO open_requests (
    request_id, node, boot, tenant_id, key_id, reserved_input, reserved_output, day, month, deadline, ip,
    path, model, backend, stream, ceiling_input, ceiling_output, prompt_bytes, images, queued, model_asked,
    trace_id, end_user
)
SELECT *
FROM unnest(
    :request_ids::uuid[], :nodes::uuid[], :boots::uuid[], :tenant_ids::uuid[], :key_ids::uuid[],
    :reserved_inputs::bigint[], :reserved_outputs::bigint[], :days::date[], :months::date[],
    :deadlines::timestamptz[], :ips::text[], :paths::text[], :models::text[], :backends::text[],
    :streams::boolean[], :ceiling_inputs::bigint[], :ceiling_outputs::bigint[], :prompt_bytes::bigint[],
    :images::int[], :queued::boolean[], :models_asked::text[], :trace_ids::text[], :end_users::text[]
) AS o
ON CONFLICT DO NOTHING;

-- name: end_open(ids)!
-- metering.settle: requests whose record has come.
DELETE FROM open_requests
WHERE request_id = ANY(:ids::uuid[]);

-- name: take_dead_boots(node, boot)
-- metering.orphans: open requests of a Caddy process that a later one has replaced.
DELETE FROM open_requests
WHERE node = :node AND boot < :boot
RETURNING request_id, node, boot, tenant_id, key_id, reserved_input, reserved_output, day, month, deadline,
    ip, path, model, backend, stream, ceiling_input, ceiling_output, prompt_bytes, images, queued,
    started_at, model_asked, trace_id, end_user;

-- name: take_overdue(node, before)
-- metering.orphans: open requests that must have ended long ago, and those of nodes that never return.
-- What another process is just ending is its own.
DELETE FROM open_requests
WHERE request_id = ANY(ARRAY(
    SELECT request_id
    FROM open_requests
    WHERE (node = :node AND deadline < :before)
        OR node IN (SELECT n.node FROM nodes AS n WHERE n.retired_at IS NOT NULL)
    FOR UPDATE SKIP LOCKED
))
RETURNING request_id, node, boot, tenant_id, key_id, reserved_input, reserved_output, day, month, deadline,
    ip, path, model, backend, stream, ceiling_input, ceiling_output, prompt_bytes, images, queued,
    started_at, model_asked, trace_id, end_user;

-- name: add_ledger(request_id, entry, at, node, boot, seq, ip, lookup, tenant_id, key_id, method, path, model, backend, stream, outcome, reason, status, upstream_status, reserved_input, reserved_output, day, month, max_output, terminal, reported_input_tokens, reported_output_tokens, cached_tokens, deltas, output_bytes, prompt_bytes, images, ttft_ms, duration_ms, load_ms, prompt_eval_ms, eval_ms, input_tokens, output_tokens, overrun_tokens, usage_source, input_bytes_per_token, output_bytes_per_token, output_tokens_per_delta, output_tokens_per_s, actor, ceiling_input, ceiling_output, text_bytes, tool_bytes, messages, tools, cold, stream_ms, tool_bytes_per_token, sent, tried, waited_ms, bound, bound_table, model_asked, trace_id, end_user)
-- metering.settle: only the rows answered are new, and only they count; each waits to be published. Columns
-- go by name, so that a release which knows fewer of them runs on the same schema. Who a request came from
-- stands elsewhere, and here an id.
WITH added AS (
    INSERT INTO ledger (
        request_id, entry, at, node, boot, seq, address_id, lookup, tenant_id, key_id, method, path, model,
        backend, stream, outcome, reason, status, upstream_status, reserved_input, reserved_output, day,
        month, max_output, terminal, reported_input_tokens, reported_output_tokens, cached_tokens,
        deltas, output_bytes, prompt_bytes, images, ttft_ms, duration_ms, load_ms, prompt_eval_ms,
        eval_ms, input_tokens, output_tokens, overrun_tokens, usage_source, input_bytes_per_token,
        output_bytes_per_token, output_tokens_per_delta, output_tokens_per_s, actor, ceiling_input,
        ceiling_output, text_bytes, tool_bytes, messages, tools, cold, stream_ms,
        tool_bytes_per_token, sent, tried, waited_ms, bound, bound_table, model_asked, trace_id,
        end_user_id
    )
    SELECT *
    FROM unnest(
        :request_id::uuid[], :entry::smallint[], :at::timestamptz[], :node::uuid[], :boot::uuid[],
        :seq::bigint[], address_ids(:tenant_id::uuid[], :request_id::uuid[], :ip::text[]), :lookup::text[], :tenant_id::uuid[], :key_id::uuid[],
        :method::text[], :path::text[], :model::text[], :backend::text[], :stream::boolean[],
        :outcome::text[], :reason::text[], :status::int[], :upstream_status::int[],
        :reserved_input::bigint[], :reserved_output::bigint[], :day::date[], :month::date[],
        :max_output::bigint[], :terminal::boolean[], :reported_input_tokens::bigint[],
        :reported_output_tokens::bigint[], :cached_tokens::bigint[], :deltas::bigint[],
        :output_bytes::bigint[], :prompt_bytes::bigint[], :images::int[], :ttft_ms::bigint[],
        :duration_ms::bigint[], :load_ms::bigint[], :prompt_eval_ms::bigint[], :eval_ms::bigint[],
        :input_tokens::bigint[], :output_tokens::bigint[], :overrun_tokens::bigint[],
        :usage_source::text[], :input_bytes_per_token::float8[], :output_bytes_per_token::float8[],
        :output_tokens_per_delta::float8[], :output_tokens_per_s::float8[], :actor::text[],
        :ceiling_input::bigint[], :ceiling_output::bigint[], :text_bytes::bigint[], :tool_bytes::bigint[],
        :messages::bigint[], :tools::bigint[], :cold::boolean[], :stream_ms::bigint[],
        :tool_bytes_per_token::float8[], :sent::boolean[], :tried::text[], :waited_ms::bigint[],
        :bound::bigint[], :bound_table::text[], :model_asked::text[], :trace_id::text[],
        end_user_ids(:tenant_id::uuid[], :end_user::text[])
    ) AS r
    ORDER BY 1, 2
    ON CONFLICT DO NOTHING
    RETURNING request_id, entry, tenant_id, key_id
), waiting AS (
    INSERT INTO unpublished (request_id, entry, tenant_id, key_id)
    SELECT request_id, entry, tenant_id, key_id
    FROM added
    WHERE tenant_id IS NOT NULL
    ORDER BY tenant_id, request_id, entry
    ON CONFLICT DO NOTHING
)
SELECT request_id
FROM added;

-- name: orphans_charged(ids, first, until)
-- metering.settle: which of these requests, all of one day, were settled without their record and not
-- adjusted yet.
SELECT l.request_id, l.tenant_id, l.key_id, l.day, l.month, l.input_tokens, l.output_tokens
FROM ledger AS l
WHERE l.request_id = ANY(:ids::uuid[])
    AND l.entry = 0
    AND l.outcome IN ('orphaned', 'swept')
    AND l.request_id >= :first::uuid AND l.request_id < :until::uuid
    AND NOT EXISTS (
        SELECT FROM ledger AS a
        WHERE a.request_id = l.request_id AND a.entry = 1
            AND a.request_id >= :first::uuid AND a.request_id < :until::uuid
    );

-- name: lock_credits(tenants)
-- metering.settle, before an orphan is adjusted: no correction may lower the same sum meanwhile.
SELECT lock_credits(t.id)
FROM (SELECT id FROM unnest(:tenants::uuid[]) AS u (id) ORDER BY id) AS t;

-- name: credited(ids, first, until)
-- metering.settle: what corrections have taken off these requests, all of one day, already.
SELECT request_id, -sum(input_tokens + output_tokens)::bigint AS tokens
FROM ledger
WHERE request_id = ANY(:ids::uuid[]) AND entry >= 2
    AND request_id >= :first::uuid AND request_id < :until::uuid
GROUP BY request_id;

-- name: raise_windows(scopes, periods, starts, tenants, used)
-- metering.settle, late in the transaction, for a short lock on a tenant's row.
INSERT INTO budget_windows AS w (scope_id, period, start, tenant_id, used)
SELECT u.scope_id, u.period, u.start, u.tenant_id, u.used
FROM unnest(:scopes::uuid[], :periods::text[], :starts::date[], :tenants::uuid[], :used::bigint[])
    AS u (scope_id, period, start, tenant_id, used)
ORDER BY u.scope_id, u.period, u.start
ON CONFLICT (scope_id, period, start) DO UPDATE
SET used = w.used + excluded.used, version = w.version + 1
RETURNING tenant_id, scope_id, period, start, used, version;

-- name: unpublished(tenant, request_id, entry, count)
-- metering.publish: a page of the outbox, from a place of its primary key on.
SELECT tenant_id, request_id, entry, key_id
FROM unpublished
WHERE (tenant_id, request_id, entry) > (:tenant::uuid, :request_id::uuid, :entry::smallint)
ORDER BY tenant_id, request_id, entry
LIMIT :count;

-- name: entries(ids, first, until)
-- metering.publish: what the ledger has of requests of one day.
SELECT request_id, entry, day, month, input_tokens + output_tokens AS tokens
FROM ledger
WHERE request_id = ANY(:ids::uuid[]) AND request_id >= :first::uuid AND request_id < :until::uuid;

-- name: windows(scopes, starts)
-- metering.publish: what tenants and keys have used of some windows.
SELECT tenant_id, scope_id, period, start, used, version
FROM budget_windows
WHERE scope_id = ANY(:scopes::uuid[]) AND start = ANY(:starts::date[]);

-- name: published(tenants, ids, entries)!
-- metering.publish: Redis has the rows. What another process is just taking out, too, is left to it.
DELETE FROM unpublished
WHERE ctid = ANY(ARRAY(
    SELECT u.ctid
    FROM unnest(:tenants::uuid[], :ids::uuid[], :entries::smallint[]) AS p (tenant_id, request_id, entry)
    JOIN unpublished AS u USING (tenant_id, request_id, entry)
    FOR UPDATE OF u SKIP LOCKED
));

-- name: every_eof_at()$
-- metering.orphans: how far every node's journal is known; null if one's never was read to an end.
SELECT CASE WHEN bool_and(eof_at IS NOT NULL) THEN min(eof_at) END
FROM nodes
WHERE retired_at IS NULL;

-- name: tenants()
-- metering.orphans: whose reservations to look through.
SELECT id
FROM tenants;

-- name: open_of(ids)
-- metering.orphans: which of these requests are open.
SELECT request_id
FROM open_requests
WHERE request_id = ANY(:ids::uuid[]);

-- name: publish_again(ids, first, until)!
-- metering.orphans: requests of one day that Redis still holds although the ledger knows their end.
INSERT INTO unpublished (request_id, entry, tenant_id, key_id)
SELECT request_id, entry, tenant_id, key_id
FROM ledger
WHERE request_id = ANY(:ids::uuid[]) AND entry = 0 AND tenant_id IS NOT NULL
    AND request_id >= :first::uuid AND request_id < :until::uuid
ORDER BY tenant_id, request_id, entry
ON CONFLICT DO NOTHING;

-- name: partitions()
-- metering.retention: the days the ledger has.
SELECT to_date(substring(c.relname FROM '\d{8}$'), 'YYYYMMDD') AS day
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'ledger'::regclass AND c.relname ~ '^ledger_\d{8}$'
ORDER BY day;

-- name: add_uses(day, tenant_id, key_id, model, requests, input_tokens, output_tokens)!
-- metering.settle: the ledger's sums for `usage`.
INSERT INTO usage_daily AS u (day, tenant_id, key_id, model, requests, input_tokens, output_tokens)
SELECT *
FROM unnest(
    :day::date[], :tenant_id::uuid[], :key_id::uuid[], :model::text[], :requests::bigint[],
    :input_tokens::bigint[], :output_tokens::bigint[]
) AS r
ON CONFLICT (day, key_id, model) DO UPDATE
SET requests = u.requests + excluded.requests,
    input_tokens = u.input_tokens + excluded.input_tokens,
    output_tokens = u.output_tokens + excluded.output_tokens;

-- name: kept_refusals(keys, minutes, most, first, until)
-- metering.settle: which denied requests of a key and minute are ledger rows already, if not too many; the
-- minutes are of one day.
SELECT k.key_id, k.minute, l.request_id
FROM unnest(:keys::uuid[], :minutes::timestamptz[]) AS k (key_id, minute)
CROSS JOIN LATERAL (
    SELECT request_id
    FROM ledger
    WHERE key_id = k.key_id AND outcome = 'denied'
        AND request_id >= uuid7_floor(k.minute)
        AND request_id < uuid7_floor(k.minute + interval '1 minute')
        AND request_id >= :first::uuid AND request_id < :until::uuid
    LIMIT :most
) AS l;

-- name: add_refusals(minute, tenant_id, key_id, source, reason, refusals)!
-- metering.settle: refusals that are no ledger rows.
INSERT INTO refusals_per_minute AS p (minute, tenant_id, key_id, source, reason, refusals)
SELECT *
FROM unnest(
    :minute::timestamptz[], :tenant_id::uuid[], :key_id::uuid[], :source::cidr[], :reason::text[],
    :refusals::bigint[]
) AS r
ON CONFLICT (minute, key_id, source, reason) DO UPDATE SET refusals = p.refusals + excluded.refusals;
