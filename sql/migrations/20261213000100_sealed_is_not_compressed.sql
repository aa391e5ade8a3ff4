-- migrate:up

-- What is sealed can't be made shorter: PostgreSQL need not try. The partitions of days to come are made like
-- the table itself.
ALTER TABLE prompt_pieces ALTER COLUMN box SET STORAGE EXTERNAL;

-- migrate:down

ALTER TABLE prompt_pieces ALTER COLUMN box SET STORAGE EXTENDED;
