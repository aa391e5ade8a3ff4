-- migrate:up

-- How long prompts and answers of a key are kept, sealed, in seconds; NULL keeps none.
ALTER TABLE keys
    ADD COLUMN log_prompts_s bigint CHECK (log_prompts_s > 0);

GRANT UPDATE (log_prompts_s) ON keys TO gateway_admin;

-- migrate:down

ALTER TABLE keys DROP COLUMN log_prompts_s;
