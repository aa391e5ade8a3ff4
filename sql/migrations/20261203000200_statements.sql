-- migrate:up

-- A statement is final when nothing of its month runs any more.
GRANT SELECT (request_id, tenant_id, month) ON open_requests TO gateway_admin;

-- migrate:down

REVOKE SELECT (request_id, tenant_id, month) ON open_requests FROM gateway_admin;
