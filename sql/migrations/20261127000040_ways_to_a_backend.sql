-- migrate:up

-- What else of a record decides its price, or says by which way it went.
ALTER TABLE ledger
    ADD COLUMN sent boolean,
    ADD COLUMN tried text,
    ADD COLUMN waited_ms bigint,
    ADD COLUMN bound bigint,
    ADD COLUMN bound_table text;

COMMENT ON COLUMN ledger.sent IS 'Whether the backend was written to: one that was not has not worked.';

COMMENT ON COLUMN ledger.tried IS 'The backend that was asked before, and was away or busy.';

COMMENT ON COLUMN ledger.waited_ms IS 'Milliseconds in which no backend had the request: they cost nothing.';

COMMENT ON COLUMN ledger.bound IS 'The most tokens that the prompt can have, by the vocabulary of a model.';

COMMENT ON COLUMN ledger.bound_table IS 'The digest of the model by whose vocabulary it is bounded.';

-- migrate:down

ALTER TABLE ledger
    DROP COLUMN sent,
    DROP COLUMN tried,
    DROP COLUMN waited_ms,
    DROP COLUMN bound,
    DROP COLUMN bound_table;
