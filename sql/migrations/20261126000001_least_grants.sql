-- migrate:up

-- One role per program in place of gateway_service, each with no more than it needs: gateway_authz
-- decides, gateway_metering bills, gateway_admin is the commands; gateway_reader is for whoever makes
-- reports. None can change or remove a row of the ledger or of the audit.
DO $$
DECLARE
    own_role text := current_setting('role');
    roles text[] := ARRAY['gateway_authz', 'gateway_metering', 'gateway_admin', 'gateway_reader'];
    name text;
BEGIN
    FOREACH name IN ARRAY roles LOOP
        IF to_regrole(name) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', name);
        END IF;
        -- Since PostgreSQL 16 who makes a role may administer it but not act as it, so ask by trying.
        BEGIN
            PERFORM set_config('role', name, true);
            PERFORM set_config('role', own_role, true);
        EXCEPTION WHEN insufficient_privilege THEN
            EXECUTE format('GRANT %I TO %I', name, current_user);
        END;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'an administrator must first run: CREATE ROLE gateway_authz NOLOGIN; CREATE ROLE gateway_metering NOLOGIN; CREATE ROLE gateway_admin NOLOGIN; CREATE ROLE gateway_reader NOLOGIN; GRANT gateway_authz, gateway_metering, gateway_admin, gateway_reader TO %',
        quote_ident(current_user);
END
$$;

-- gateway_service keeps its rights until the release before, which acts as it, is no longer started.

-- Every program repeats what a command could not publish.
GRANT SELECT, UPDATE (published_version) ON tenants, keys
TO gateway_authz, gateway_metering, gateway_admin;

-- authz reads what it decides by.
GRANT SELECT ON secrets, nodes, budget_windows, open_requests, model_ratios TO gateway_authz;

GRANT SELECT (request_id, tenant_id) ON ledger TO gateway_authz;

-- Disables a key whose proof fails; as a function, because the right to update states could enable one.
CREATE FUNCTION disable_key(handle text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE keys SET state = 'disabled', version = version + 1
    WHERE state = 'active' AND id = (SELECT key_id FROM secrets WHERE lookup = handle);
$$;

REVOKE EXECUTE ON FUNCTION disable_key (text) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION disable_key (text) TO gateway_authz;

-- metering settles: history grows, sums are raised, what has passed is taken out.
GRANT SELECT (lookup, key_id) ON secrets TO gateway_metering;

GRANT SELECT, INSERT ON ledger TO gateway_metering;

GRANT SELECT, INSERT, UPDATE (used, version) ON budget_windows TO gateway_metering;

GRANT SELECT, INSERT, UPDATE (requests, input_tokens, output_tokens) ON usage_daily TO gateway_metering;

GRANT SELECT, INSERT, UPDATE (boot, eof_at) ON nodes TO gateway_metering;

GRANT SELECT, INSERT, UPDATE (is_replay_wanted, replayed_at) ON dead_letters TO gateway_metering;

GRANT SELECT, INSERT, UPDATE ON model_ratios, journal_sequences TO gateway_metering;

GRANT SELECT, INSERT, UPDATE, DELETE ON journal_files, refusals_per_minute TO gateway_metering;

GRANT SELECT, INSERT, DELETE ON open_requests, unpublished TO gateway_metering;

REVOKE EXECUTE ON FUNCTION oldest_ledger_day () FROM PUBLIC;

GRANT EXECUTE ON FUNCTION ensure_ledger_partition (date), oldest_ledger_day () TO gateway_metering;

-- The commands change who may do what, and read what was billed.
GRANT INSERT ON tenants, keys, secrets, admin_audit TO gateway_admin;

GRANT UPDATE (
    timezone, state, requests_per_minute, tokens_per_minute, concurrency,
    tokens_per_day, tokens_per_month, tokens_total, version
) ON tenants TO gateway_admin;

GRANT UPDATE (
    state, models, cidrs, expires_at, max_output, requests_per_minute, tokens_per_minute, concurrency,
    tokens_per_day, tokens_per_month, tokens_total, version
) ON keys TO gateway_admin;

GRANT SELECT (lookup, key_id, expires_at, created_at), UPDATE (expires_at) ON secrets TO gateway_admin;

GRANT SELECT, UPDATE (retired_at) ON nodes TO gateway_admin;

GRANT SELECT, UPDATE (is_replay_wanted) ON dead_letters TO gateway_admin;

GRANT SELECT ON ledger, usage_daily, budget_windows, refusals_per_minute, journal_sequences, admin_audit
TO gateway_admin;

-- migrate:down

DROP FUNCTION disable_key (text);

GRANT EXECUTE ON FUNCTION oldest_ledger_day () TO PUBLIC;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM gateway_authz, gateway_metering, gateway_admin;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM gateway_authz, gateway_metering, gateway_admin;

GRANT SELECT, INSERT ON ledger, admin_audit TO gateway_service;

GRANT SELECT, INSERT, UPDATE ON tenants, keys, secrets, nodes, budget_windows, usage_daily, dead_letters,
    model_ratios TO gateway_service;

GRANT SELECT, INSERT, UPDATE, DELETE ON journal_files, journal_sequences, open_requests, unpublished,
    refusals_per_minute TO gateway_service;

GRANT EXECUTE ON FUNCTION ensure_ledger_partition (date), drop_ledger_partition (date) TO gateway_service;
