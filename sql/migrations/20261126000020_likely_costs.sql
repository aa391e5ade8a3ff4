-- migrate:up

-- What an orphan is priced by: the terms of its request, and the worst that they allow.
ALTER TABLE open_requests
    ADD COLUMN ip text,
    ADD COLUMN path text,
    ADD COLUMN model text,
    ADD COLUMN backend text,
    ADD COLUMN stream boolean,
    ADD COLUMN ceiling_input bigint,
    ADD COLUMN ceiling_output bigint,
    ADD COLUMN prompt_bytes bigint,
    ADD COLUMN images int;

ALTER TABLE ledger
    ADD COLUMN ceiling_input bigint,
    ADD COLUMN ceiling_output bigint,
    ADD COLUMN text_bytes bigint,
    ADD COLUMN tool_bytes bigint,
    ADD COLUMN messages bigint,
    ADD COLUMN tools bigint,
    ADD COLUMN cold boolean,
    ADD COLUMN stream_ms bigint,
    ADD COLUMN tool_bytes_per_token double precision;

ALTER TABLE ledger DROP CONSTRAINT ledger_usage_source_check;

ALTER TABLE ledger ADD CONSTRAINT ledger_usage_source_check
CHECK (usage_source IN ('reported', 'counted', 'reserved', 'progress', 'corrected', 'none')) NOT VALID;

-- What the running streams of a Caddy process had delivered at its last progress line (progress_at), one
-- merged row a process; last_at is when it wrote its last line of any kind.
CREATE TABLE boot_progress (
    boot uuid PRIMARY KEY,
    node uuid NOT NULL,
    last_at timestamptz NOT NULL,
    progress_at timestamptz,
    ids uuid[] NOT NULL DEFAULT '{}',
    deltas bigint[] NOT NULL DEFAULT '{}',
    text_bytes bigint[] NOT NULL DEFAULT '{}',
    tool_bytes bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- Sums over the answers of a key, and of all keys of a tenant (scope_id), that reported their usage. Each
-- figure by which unreported tokens are counted is one sum over another. Replaces model_ratios, which the
-- release before still reads and writes.
CREATE TABLE learned_figures (
    model text NOT NULL,
    scope_id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    answers bigint NOT NULL,
    prompt_bytes double precision NOT NULL,
    prompt_tokens double precision NOT NULL,
    embedded_bytes double precision NOT NULL,
    embedded_tokens double precision NOT NULL,
    text_bytes double precision NOT NULL,
    text_tokens double precision NOT NULL,
    deltas double precision NOT NULL,
    delta_tokens double precision NOT NULL,
    tool_bytes double precision NOT NULL,
    tool_tokens double precision NOT NULL,
    eval_ms double precision NOT NULL,
    eval_tokens double precision NOT NULL,
    prompt_ms double precision NOT NULL,
    evaluated_tokens double precision NOT NULL,
    load_ms double precision NOT NULL,
    loads double precision NOT NULL,
    PRIMARY KEY (model, scope_id)
) WITH (fillfactor = 70);

CREATE INDEX learned_figures_tenant ON learned_figures (model) WHERE scope_id = tenant_id;

GRANT SELECT, INSERT, UPDATE, DELETE ON boot_progress, learned_figures TO gateway_service;

-- migrate:down

DROP TABLE learned_figures, boot_progress;

ALTER TABLE ledger DROP CONSTRAINT ledger_usage_source_check;

ALTER TABLE ledger ADD CONSTRAINT ledger_usage_source_check
CHECK (usage_source IN ('reported', 'counted', 'reserved', 'none')) NOT VALID;

ALTER TABLE ledger
    DROP COLUMN ceiling_input,
    DROP COLUMN ceiling_output,
    DROP COLUMN text_bytes,
    DROP COLUMN tool_bytes,
    DROP COLUMN messages,
    DROP COLUMN tools,
    DROP COLUMN cold,
    DROP COLUMN stream_ms,
    DROP COLUMN tool_bytes_per_token;

ALTER TABLE open_requests
    DROP COLUMN ip,
    DROP COLUMN path,
    DROP COLUMN model,
    DROP COLUMN backend,
    DROP COLUMN stream,
    DROP COLUMN ceiling_input,
    DROP COLUMN ceiling_output,
    DROP COLUMN prompt_bytes,
    DROP COLUMN images;
