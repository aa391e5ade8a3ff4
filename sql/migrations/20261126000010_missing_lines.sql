-- migrate:up

-- The numbers below next that were given up as lost, as ranges: first, end, first, end ... A line of
-- one of these that comes after all is taken; every other below next was taken before.
ALTER TABLE journal_sequences ADD COLUMN missing bigint[] NOT NULL DEFAULT '{}';

-- migrate:down

ALTER TABLE journal_sequences DROP COLUMN missing;
