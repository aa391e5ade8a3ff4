-- migrate:up

-- What the audit says of a tenant can be erased: its chain has a salted digest of it, as an audit that names
-- networks, models and prefixes may name people.
ALTER TABLE admin_audit ADD COLUMN salt bytea, ADD COLUMN details text;

COMMENT ON COLUMN admin_audit.old IS 'What was, as JSON; null where nothing was, or once its tenant is erased.';
COMMENT ON COLUMN admin_audit.new IS 'What is, likewise.';
COMMENT ON COLUMN admin_audit.salt IS 'Random, of a row about a tenant; null once the tenant is erased.';
COMMENT ON COLUMN admin_audit.details IS 'SHA-256 of salt, old, a newline and new: what the chain has of a row about a tenant.';

CREATE FUNCTION digest_audit() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    new.salt := uuid_send(gen_random_uuid());
    new.details := encode(sha256(new.salt || convert_to(
        coalesce(new.old::text, '') || E'\n' || coalesce(new.new::text, ''), 'UTF8'
    )), 'hex');
    RETURN new;
END
$$;

CREATE TRIGGER admin_audit_digested BEFORE INSERT ON admin_audit
FOR EACH ROW WHEN (new.tenant_id IS NOT NULL) EXECUTE FUNCTION digest_audit();

CREATE OR REPLACE FUNCTION chain_audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    row_text text;
BEGIN
    SELECT json_strip_nulls(row_to_json(r))::text INTO row_text
    FROM (
        SELECT new.id, new.at, new.actor, new.action, new.tenant_id, new.key_id,
            CASE WHEN new.details IS NULL THEN new.old::text END AS old,
            CASE WHEN new.details IS NULL THEN new.new::text END AS new, new.details
    ) AS r;
    PERFORM add_link('audit', int8send(new.id), sha256('\x00'::bytea || convert_to(row_text, 'UTF8')));
    RETURN NULL;
END
$$;

-- Erases who a tenant is, and who its clients and end users are, for good; every sum stays, under an id.
-- Its keys are revoked. Returns its new name, how much was erased, and how many rows keep what they have: those
-- that were chained with it, before this migration.
CREATE FUNCTION erase_tenant(erased uuid, by_actor text)
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

REVOKE EXECUTE ON FUNCTION digest_audit (), erase_tenant (uuid, text) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION erase_tenant (uuid, text) TO gateway_admin;

-- migrate:down

DROP FUNCTION erase_tenant (uuid, text);

CREATE OR REPLACE FUNCTION chain_audit() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    row_text text;
BEGIN
    SELECT json_strip_nulls(row_to_json(r))::text INTO row_text
    FROM (
        SELECT new.id, new.at, new.actor, new.action, new.tenant_id, new.key_id, new.old::text AS old,
            new.new::text AS new
    ) AS r;
    PERFORM add_link('audit', int8send(new.id), sha256('\x00'::bytea || convert_to(row_text, 'UTF8')));
    RETURN NULL;
END
$$;

DROP TRIGGER admin_audit_digested ON admin_audit;

DROP FUNCTION digest_audit ();

ALTER TABLE admin_audit DROP COLUMN salt, DROP COLUMN details;
