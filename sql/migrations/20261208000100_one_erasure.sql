-- migrate:up

-- Erases as before, and says of what: the audit has how many keys were revoked and aliases removed, too. Where
-- nothing is left to erase nothing changes, and what was said of an erasure stays.
CREATE OR REPLACE FUNCTION erase_tenant(erased uuid, by_actor text)
RETURNS TABLE (name text, prompts bigint, end_users bigint, addresses bigint, audit_rows bigint, kept_rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    former text;
    is_first boolean;
    its_keys bigint;
    its_aliases bigint;
BEGIN
    SELECT t.name, t.erased_at IS NULL INTO former, is_first FROM tenants AS t WHERE t.id = erased FOR UPDATE;
    name := 'erased-' || replace(erased::text, '-', '');
    UPDATE tenants AS t SET name = erase_tenant.name, state = 'disabled', policy = '{}', erased_at = now(),
        version = t.version + 1
    WHERE t.id = erased AND t.erased_at IS NULL;
    UPDATE keys AS k SET name = 'erased-' || replace(k.id::text, '-', ''), state = 'revoked', cidrs = NULL, models = NULL,
        log_prompts_s = NULL, version = k.version + 1
    WHERE k.tenant_id = erased AND k.name <> 'erased-' || replace(k.id::text, '-', '');
    GET DIAGNOSTICS its_keys = ROW_COUNT;
    DELETE FROM aliases AS a WHERE a.tenant_id = erased;
    GET DIAGNOSTICS its_aliases = ROW_COUNT;
    DELETE FROM alerts AS a WHERE a.tenant = former;
    prompts := erase_prompts(erased);
    DELETE FROM end_users AS e WHERE e.tenant_id = erased;
    GET DIAGNOSTICS end_users = ROW_COUNT;
    DELETE FROM client_addresses AS c WHERE c.tenant_id = erased;
    GET DIAGNOSTICS addresses = ROW_COUNT;
    UPDATE open_requests AS o SET ip = NULL, end_user = NULL WHERE o.tenant_id = erased;
    UPDATE dead_letters AS d SET raw = without_people(d.raw)
    WHERE position(convert_to(erased::text, 'UTF8') IN d.raw) > 0;
    UPDATE admin_audit AS a SET old = NULL, new = NULL, salt = NULL
    WHERE a.tenant_id = erased AND a.salt IS NOT NULL AND a.action <> 'tenant_erased';
    GET DIAGNOSTICS audit_rows = ROW_COUNT;
    SELECT (SELECT count(*) FROM admin_audit AS a
            WHERE a.tenant_id = erased AND a.details IS NULL AND coalesce(a.old, a.new) IS NOT NULL)
        + (SELECT count(*) FROM ledger AS l WHERE l.tenant_id = erased AND l.ip IS NOT NULL)
    INTO kept_rows;
    IF is_first OR its_keys + its_aliases + prompts + end_users + addresses + audit_rows > 0 THEN
        INSERT INTO admin_audit (actor, action, tenant_id, new)
        VALUES (by_actor, 'tenant_erased', erased, jsonb_build_object(
            'name', erase_tenant.name, 'state', 'disabled', 'keys', its_keys, 'aliases', its_aliases,
            'prompts', prompts, 'end_users', end_users, 'addresses', addresses, 'audit_rows', audit_rows
        ));
    END IF;
    RETURN NEXT;
END
$$;

-- migrate:down

CREATE OR REPLACE FUNCTION erase_tenant(erased uuid, by_actor text)
RETURNS TABLE (name text, prompts bigint, end_users bigint, addresses bigint, audit_rows bigint, kept_rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    former text;
BEGIN
    SELECT t.name INTO former FROM tenants AS t WHERE t.id = erased FOR UPDATE;
    name := 'erased-' || replace(erased::text, '-', '');
    UPDATE tenants AS t SET name = erase_tenant.name, state = 'disabled', policy = '{}',
        erased_at = coalesce(t.erased_at, now()), version = t.version + 1
    WHERE t.id = erased;
    UPDATE keys AS k SET name = 'erased-' || replace(k.id::text, '-', ''), state = 'revoked', cidrs = NULL, models = NULL,
        log_prompts_s = NULL, version = k.version + 1
    WHERE k.tenant_id = erased;
    DELETE FROM aliases AS a WHERE a.tenant_id = erased;
    DELETE FROM alerts AS a WHERE a.tenant = former;
    prompts := erase_prompts(erased);
    DELETE FROM end_users AS e WHERE e.tenant_id = erased;
    GET DIAGNOSTICS end_users = ROW_COUNT;
    DELETE FROM client_addresses AS c WHERE c.tenant_id = erased;
    GET DIAGNOSTICS addresses = ROW_COUNT;
    UPDATE open_requests AS o SET ip = NULL, end_user = NULL WHERE o.tenant_id = erased;
    UPDATE dead_letters AS d SET raw = without_people(d.raw)
    WHERE position(convert_to(erased::text, 'UTF8') IN d.raw) > 0;
    UPDATE admin_audit AS a SET old = NULL, new = NULL, salt = NULL
    WHERE a.tenant_id = erased AND a.salt IS NOT NULL;
    GET DIAGNOSTICS audit_rows = ROW_COUNT;
    SELECT (SELECT count(*) FROM admin_audit AS a
            WHERE a.tenant_id = erased AND a.details IS NULL AND coalesce(a.old, a.new) IS NOT NULL)
        + (SELECT count(*) FROM ledger AS l WHERE l.tenant_id = erased AND l.ip IS NOT NULL)
    INTO kept_rows;
    INSERT INTO admin_audit (actor, action, tenant_id, new)
    VALUES (by_actor, 'tenant_erased', erased, jsonb_build_object(
        'prompts', prompts, 'end_users', end_users, 'addresses', addresses, 'audit_rows', audit_rows
    ));
    RETURN NEXT;
END
$$;
