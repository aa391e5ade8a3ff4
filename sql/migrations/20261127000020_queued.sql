-- migrate:up

-- What waits for a slot of its backend when Caddy dies has not run.
ALTER TABLE open_requests ADD COLUMN queued boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN open_requests.queued IS
    'Whether it had to wait for a slot of its backend; boot_progress then lists it once it runs.';

-- migrate:down

ALTER TABLE open_requests DROP COLUMN queued;
