-- migrate:up

-- Raises versions beyond what Redis knows of them, after this database went back in time; as a function,
-- because the right to update versions could lower one.
CREATE FUNCTION outbid_versions(tenant uuid, tenant_known bigint, key uuid, key_known bigint)
RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH t AS (
        UPDATE tenants SET version = tenant_known + 1
        WHERE id = tenant AND version < tenant_known RETURNING id
    ), k AS (
        UPDATE keys SET version = key_known + 1
        WHERE id = key AND version < key_known RETURNING id
    )
    SELECT EXISTS (SELECT FROM t) OR EXISTS (SELECT FROM k);
$$;

REVOKE EXECUTE ON FUNCTION outbid_versions (uuid, bigint, uuid, bigint) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION outbid_versions (uuid, bigint, uuid, bigint) TO gateway_authz;

-- migrate:down

DROP FUNCTION outbid_versions (uuid, bigint, uuid, bigint);
