-- migrate:up

-- What waited for a slot and then ran when Caddy died pays for its run alone.
ALTER TABLE open_requests ADD COLUMN started_at timestamptz;

GRANT UPDATE (started_at) ON open_requests TO gateway_metering;

COMMENT ON COLUMN open_requests.started_at IS
    'When a queued one was first listed as running; null of one that waits, or has never had to.';

-- migrate:down

REVOKE UPDATE (started_at) ON open_requests FROM gateway_metering;

ALTER TABLE open_requests DROP COLUMN started_at;
