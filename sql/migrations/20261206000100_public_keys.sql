-- migrate:up

-- A client may sign its requests instead of sending a secret: its public key then stands where a secret would,
-- by handle, tag and hash. The key itself is for whoever lists keys.
ALTER TABLE secrets
    ADD COLUMN public_key text CHECK (public_key ~ '^ssh-ed25519 [0-9A-Za-z+/]{68}$');

COMMENT ON COLUMN secrets.public_key IS 'The Ed25519 public key of a client that signs its requests; NULL for a secret that is sent.';

GRANT SELECT (public_key) ON secrets TO gateway_admin;

-- migrate:down

ALTER TABLE secrets DROP COLUMN public_key;
