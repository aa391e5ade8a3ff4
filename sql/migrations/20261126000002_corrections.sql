-- migrate:up

-- Corrections: entries 2 and up, never more than was billed, each with the actor and the reason. The
-- rules hold for new rows at once; rows that are there were held to stricter ones and are not read.
ALTER TABLE ledger ADD COLUMN actor text;

ALTER TABLE ledger
    DROP CONSTRAINT ledger_entry_check,
    DROP CONSTRAINT ledger_usage_source_check,
    ADD CONSTRAINT ledger_entry_check CHECK (entry >= 0) NOT VALID,
    ADD CONSTRAINT ledger_usage_source_check CHECK (
        usage_source IN ('reported', 'counted', 'reserved', 'progress', 'none', 'corrected')
    ) NOT VALID,
    ADD CONSTRAINT ledger_settlement_check CHECK (
        entry <> 0 OR input_tokens >= 0 AND output_tokens >= 0
    ) NOT VALID,
    ADD CONSTRAINT ledger_correction_check CHECK (
        (entry >= 2) = (usage_source = 'corrected')
        AND (
            entry < 2
            OR input_tokens <= 0 AND output_tokens <= 0 AND input_tokens + output_tokens < 0
            AND coalesce(actor, '') <> '' AND coalesce(reason, '') <> ''
        )
    ) NOT VALID;

-- Metering may add rows, but a correction comes from the functions below, which bound and audit it.
CREATE FUNCTION refuse_forged_correction() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = 'ledger'::regclass), 'USAGE') THEN
        RETURN new;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = 'a correction is added by credit_request or credit_tenant';
END
$$;

CREATE TRIGGER ledger_no_forged_correction BEFORE INSERT ON ledger
FOR EACH ROW WHEN (new.entry >= 2) EXECUTE FUNCTION refuse_forged_correction();

-- The day, in UTC, whose partition holds a UUIDv7.
CREATE FUNCTION uuid7_day(id uuid) RETURNS date
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (
    to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC'
)::date;

-- Whoever lets a request's sum fall holds this first, so that no two together take it below 0:
-- a correction, and the adjustment of a request that was settled before its record came.
CREATE FUNCTION lock_credits(tenant uuid) RETURNS void
LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('credit ' || tenant, 0));
$$;

-- The part of both corrections that writes, in the order in which settlements lock: ledger, sums,
-- windows. Redis takes over the lowered windows by their version, once metering reads the outbox.
CREATE FUNCTION add_credit(credited ledger) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    amount bigint := -(credited.input_tokens + credited.output_tokens);
    scopes uuid[] := array_remove(ARRAY[credited.tenant_id, credited.key_id], NULL);
    starts date[] := ARRAY[credited.day, credited.month, '1970-01-01'];
    lowered bigint;
    least_used bigint;
BEGIN
    INSERT INTO ledger SELECT credited.*;
    INSERT INTO unpublished (request_id, entry, tenant_id, key_id)
    VALUES (
        credited.request_id, credited.entry, credited.tenant_id,
        coalesce(credited.key_id, credited.tenant_id)
    );
    INSERT INTO admin_audit (at, actor, action, tenant_id, key_id, new)
    VALUES (
        credited.at, credited.actor, 'usage_credited', credited.tenant_id, credited.key_id,
        jsonb_build_object(
            'request', credited.request_id, 'entry', credited.entry, 'tokens', amount,
            'reason', credited.reason
        )
    );
    -- What a tenant alone is credited stands under the tenant's own id.
    INSERT INTO usage_daily AS u (day, tenant_id, key_id, model, requests, input_tokens, output_tokens)
    VALUES (
        coalesce(credited.day, uuid7_day(credited.request_id)), credited.tenant_id,
        coalesce(credited.key_id, credited.tenant_id),
        coalesce(credited.model, ''), 0, credited.input_tokens, credited.output_tokens
    )
    ON CONFLICT (day, key_id, model) DO UPDATE
    SET input_tokens = u.input_tokens + excluded.input_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens;
    PERFORM FROM budget_windows AS w
    JOIN unnest(ARRAY['day', 'month', 'total'], starts) AS p (period, start) USING (period, start)
    WHERE w.scope_id = ANY(scopes)
    ORDER BY w.scope_id, w.period, w.start
    FOR UPDATE OF w;
    UPDATE budget_windows AS w SET used = w.used - amount, version = w.version + 1
    FROM unnest(ARRAY['day', 'month', 'total'], starts) AS p (period, start)
    WHERE w.scope_id = ANY(scopes) AND w.period = p.period AND w.start = p.start AND w.used >= amount;
    GET DIAGNOSTICS lowered = ROW_COUNT;
    IF lowered < 3 * cardinality(scopes) THEN
        SELECT min(coalesce(w.used, 0)) INTO least_used
        FROM unnest(scopes) AS s (scope_id)
        CROSS JOIN unnest(ARRAY['day', 'month', 'total'], starts) AS p (period, start)
        LEFT JOIN budget_windows AS w USING (scope_id, period, start);
        RAISE EXCEPTION 'Only % tokens are left in the windows of %, so % can''t be credited: give a smaller --tokens, or credit a request of an earlier day with --request.',
            least_used, credited.day, amount;
    END IF;
END
$$;

-- `usage credit --request`: from the windows of the request's own admission; output first, then input.
CREATE FUNCTION credit_request(
    of_request uuid, amount bigint, moment timestamptz, by_actor text, for_reason text
) RETURNS TABLE (request uuid, number smallint, input bigint, output bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    credited ledger;
    earlier record;
    billed record;
BEGIN
    SELECT * INTO credited FROM ledger WHERE request_id = of_request AND entry = 0;
    IF NOT FOUND AND EXISTS (SELECT FROM open_requests WHERE request_id = of_request) THEN
        RAISE EXCEPTION 'Request % still runs: credit it once it is billed, or end it with `neuronetz-gateway streams kill`.',
            of_request;
    ELSIF NOT FOUND THEN
        RAISE EXCEPTION 'The ledger has no request %: take the id from X-Request-Id or `neuronetz-gateway usage export`.',
            of_request;
    END IF;
    PERFORM lock_credits(credited.tenant_id);
    SELECT sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
        greatest(max(entry), 1::smallint) AS entry INTO billed
    FROM ledger WHERE request_id = of_request;
    SELECT at, actor INTO earlier FROM ledger
    WHERE request_id = of_request AND entry >= 2 AND reason = for_reason
        AND input_tokens + output_tokens = -amount;
    IF FOUND THEN
        RAISE EXCEPTION 'Request % was credited % tokens for this reason by % at % already: a second credit needs a reason of its own.',
            of_request, amount, earlier.actor, earlier.at;
    ELSIF amount > billed.input_tokens + billed.output_tokens THEN
        RAISE EXCEPTION 'Request % is billed % tokens in all, so % can''t be credited: give a smaller --tokens.',
            of_request, billed.input_tokens + billed.output_tokens, amount;
    END IF;
    credited := jsonb_populate_record(NULL::ledger, jsonb_build_object(
        'request_id', of_request, 'entry', billed.entry + 1, 'at', moment, 'node', credited.node,
        'boot', '00000000-0000-0000-0000-000000000000'::uuid,
        'tenant_id', credited.tenant_id, 'key_id', credited.key_id, 'model', credited.model,
        'day', credited.day, 'month', credited.month, 'outcome', 'corrected', 'usage_source', 'corrected',
        'input_tokens', -(amount - least(amount, billed.output_tokens)),
        'output_tokens', -least(amount, billed.output_tokens),
        'overrun_tokens', 0, 'actor', by_actor, 'reason', for_reason
    ));
    PERFORM add_credit(credited);
    RETURN QUERY SELECT of_request, credited.entry, -credited.input_tokens, -credited.output_tokens;
END
$$;

-- `usage credit --tenant`: from today's windows of a tenant, with --prefix from a key's, too; under an id
-- of its own. day is the tenant's today.
CREATE FUNCTION credit_tenant(
    of_tenant uuid, of_key uuid, amount bigint, moment timestamptz, today date, by_actor text, for_reason text
) RETURNS TABLE (request uuid, number smallint, input bigint, output bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    own_id uuid := (
        left(replace(uuid7_floor(moment)::text, '-', ''), 12) || '7'
        || substr(replace(gen_random_uuid()::text, '-', ''), 14)
    )::uuid;
    credited ledger;
    earlier record;
    used_output bigint;
BEGIN
    PERFORM ensure_ledger_partition(uuid7_day(own_id));
    PERFORM lock_credits(of_tenant);
    IF today NOT BETWEEN uuid7_day(own_id) - 1 AND uuid7_day(own_id) + 1
        OR of_key IS NOT NULL AND NOT EXISTS (SELECT FROM keys WHERE id = of_key AND tenant_id = of_tenant)
    THEN
        RAISE EXCEPTION 'A credit is for today, and for a key of the tenant: give another --prefix.';
    END IF;
    SELECT at, actor INTO earlier FROM ledger
    WHERE tenant_id = of_tenant AND key_id IS NOT DISTINCT FROM of_key AND day = today
        AND request_id >= uuid7_floor((today - 1)::timestamp AT TIME ZONE 'UTC')
        AND request_id < uuid7_floor((today + 2)::timestamp AT TIME ZONE 'UTC')
        AND entry = 2 AND node = '00000000-0000-0000-0000-000000000000' AND reason = for_reason
        AND input_tokens + output_tokens = -amount;
    IF FOUND THEN
        RAISE EXCEPTION 'The same was credited for this reason by % at % already: a second credit needs a reason of its own.',
            earlier.actor, earlier.at;
    END IF;
    SELECT coalesce(sum(output_tokens), 0)::bigint INTO used_output FROM usage_daily
    WHERE tenant_id = of_tenant AND day = today AND (of_key IS NULL OR key_id = of_key);
    used_output := greatest(0, least(amount, used_output));
    credited := jsonb_populate_record(NULL::ledger, jsonb_build_object(
        'request_id', own_id, 'entry', 2, 'at', moment,
        'node', '00000000-0000-0000-0000-000000000000'::uuid,
        'boot', '00000000-0000-0000-0000-000000000000'::uuid,
        'tenant_id', of_tenant, 'key_id', of_key,
        'day', today, 'month', date_trunc('month', today)::date,
        'outcome', 'corrected', 'usage_source', 'corrected',
        'input_tokens', -(amount - used_output), 'output_tokens', -used_output,
        'overrun_tokens', 0, 'actor', by_actor, 'reason', for_reason
    ));
    PERFORM add_credit(credited);
    RETURN QUERY SELECT own_id, credited.entry, -credited.input_tokens, -credited.output_tokens;
END
$$;

REVOKE EXECUTE ON FUNCTION
    add_credit (ledger),
    credit_request (uuid, bigint, timestamptz, text, text),
    credit_tenant (uuid, uuid, bigint, timestamptz, date, text, text)
FROM PUBLIC;

GRANT EXECUTE ON FUNCTION
    credit_request (uuid, bigint, timestamptz, text, text),
    credit_tenant (uuid, uuid, bigint, timestamptz, date, text, text)
TO gateway_admin;

-- migrate:down

DROP FUNCTION credit_tenant (uuid, uuid, bigint, timestamptz, date, text, text);

DROP FUNCTION credit_request (uuid, bigint, timestamptz, text, text);

DROP FUNCTION add_credit (ledger);

DROP FUNCTION lock_credits (uuid);

DROP FUNCTION uuid7_day (uuid);

DROP TRIGGER ledger_no_forged_correction ON ledger;

DROP FUNCTION refuse_forged_correction ();

-- Corrections that were made stay: the older rules hold for what comes.
ALTER TABLE ledger
    DROP CONSTRAINT ledger_correction_check,
    DROP CONSTRAINT ledger_settlement_check,
    DROP CONSTRAINT ledger_usage_source_check,
    DROP CONSTRAINT ledger_entry_check,
    ADD CONSTRAINT ledger_usage_source_check CHECK (
        usage_source IN ('reported', 'counted', 'reserved', 'none')
    ) NOT VALID,
    ADD CONSTRAINT ledger_entry_check CHECK (entry IN (0, 1)) NOT VALID;

ALTER TABLE ledger DROP COLUMN actor;
