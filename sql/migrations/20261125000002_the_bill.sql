-- migrate:up

-- The ledger's sums by day of the request's id (UTC), key and model, kept by every settlement in its
-- own transaction: `usage` reads these however long the ledger is. Rows that say nothing are left out.
CREATE TABLE usage_daily (
    day date NOT NULL,
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    model text NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    PRIMARY KEY (day, key_id, model)
) WITH (fillfactor = 70);

CREATE INDEX usage_daily_tenant ON usage_daily (tenant_id, day);

INSERT INTO usage_daily (day, tenant_id, key_id, model, requests, input_tokens, output_tokens)
SELECT
    (to_timestamp(('x' || left(replace(request_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0)
        AT TIME ZONE 'UTC')::date,
    tenant_id, key_id, coalesce(model, ''),
    count(*) FILTER (WHERE entry = 0 AND backend IS NOT NULL), sum(input_tokens), sum(output_tokens)
FROM ledger
WHERE tenant_id IS NOT NULL AND key_id IS NOT NULL
    AND (input_tokens <> 0 OR output_tokens <> 0 OR entry = 0 AND backend IS NOT NULL)
GROUP BY 1, 2, 3, 4;

-- Refusals that are no ledger rows, so that a flood of them fills no table: those of unknown keys by
-- source (an IPv4 address, an IPv6 /64; null if it is no address), those of a known key beyond the
-- first 60 of a minute by key.
CREATE TABLE refusals_per_minute (
    minute timestamptz NOT NULL,
    tenant_id uuid,
    key_id uuid,
    source cidr,
    reason text NOT NULL,
    refusals bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (minute, key_id, source, reason)
);

-- The refusals of a key in a minute, and all refusals of some hours, without reading what was served.
CREATE INDEX ledger_refusals ON ledger (key_id, request_id)
WHERE outcome IN ('denied', 'refused', 'authz_failed');

-- Whom the services and commands act as: it adds to the ledger and the audit, and rewrites neither.
DO $$
DECLARE
    own_role text := current_setting('role');
BEGIN
    IF to_regrole('gateway_service') IS NULL THEN
        CREATE ROLE gateway_service NOLOGIN;
    END IF;
    -- Since PostgreSQL 16 who makes a role may administer it but not act as it, so ask by trying.
    BEGIN
        PERFORM set_config('role', 'gateway_service', true);
        PERFORM set_config('role', own_role, true);
    EXCEPTION WHEN insufficient_privilege THEN
        EXECUTE format('GRANT gateway_service TO %I', current_user);
    END;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'an administrator must first run: CREATE ROLE gateway_service NOLOGIN; GRANT gateway_service TO %',
        quote_ident(current_user);
END
$$;

GRANT SELECT, INSERT ON ledger, admin_audit TO gateway_service;

GRANT SELECT, INSERT, UPDATE ON tenants, keys, secrets, nodes, budget_windows, usage_daily, dead_letters,
    model_ratios TO gateway_service;

GRANT SELECT, INSERT, UPDATE, DELETE ON journal_files, journal_sequences, open_requests, unpublished,
    refusals_per_minute TO gateway_service;

-- Partitions stay the owner's, so that no day can be changed by its own name either.
ALTER FUNCTION ensure_ledger_partition (date) SECURITY DEFINER SET search_path = public, pg_temp;

ALTER FUNCTION drop_ledger_partition (date) SECURITY DEFINER SET search_path = public, pg_temp;

REVOKE EXECUTE ON FUNCTION ensure_ledger_partition (date), drop_ledger_partition (date) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION ensure_ledger_partition (date), drop_ledger_partition (date) TO gateway_service;

-- migrate:down

ALTER FUNCTION drop_ledger_partition (date) SECURITY INVOKER RESET search_path;

ALTER FUNCTION ensure_ledger_partition (date) SECURITY INVOKER RESET search_path;

GRANT EXECUTE ON FUNCTION ensure_ledger_partition (date), drop_ledger_partition (date) TO PUBLIC;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM gateway_service;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM gateway_service;

DROP INDEX ledger_refusals;

DROP TABLE refusals_per_minute, usage_daily;
