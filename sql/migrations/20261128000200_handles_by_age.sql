-- migrate:up

-- Every authz process asks for the handles made since it asked last.
CREATE INDEX secrets_created ON secrets (created_at);

-- migrate:down

DROP INDEX secrets_created;
