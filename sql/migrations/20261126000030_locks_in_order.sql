-- migrate:up

-- Who deletes these rows locks them first, which PostgreSQL takes for the right to update a column of them.
GRANT UPDATE (deadline) ON open_requests TO gateway_metering;

GRANT UPDATE (key_id) ON unpublished TO gateway_metering;

-- migrate:down

REVOKE UPDATE (deadline) ON open_requests FROM gateway_metering;

REVOKE UPDATE (key_id) ON unpublished FROM gateway_metering;
