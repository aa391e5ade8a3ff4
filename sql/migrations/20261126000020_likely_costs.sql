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

GRANT SELECT, INSERT, UPDATE, DELETE ON boot_progress TO gateway_metering;

GRANT SELECT, INSERT, UPDATE ON learned_figures TO gateway_metering;

COMMENT ON TABLE boot_progress IS 'What running streams had delivered when their Caddy process wrote of it last.';
COMMENT ON TABLE learned_figures IS 'Sums over answers that reported their usage, which the others are priced by.';
COMMENT ON COLUMN ledger.ceiling_input IS 'The most input tokens that the request could be charged.';
COMMENT ON COLUMN ledger.ceiling_output IS 'The most output tokens that the request could be charged.';
COMMENT ON COLUMN ledger.text_bytes IS 'Bytes of text in the answer, reasoning included.';
COMMENT ON COLUMN ledger.tool_bytes IS 'Bytes of the names and arguments of tool calls in the answer.';
COMMENT ON COLUMN ledger.messages IS 'Messages in the prompt.';
COMMENT ON COLUMN ledger.tools IS 'Tools that the request offers.';
COMMENT ON COLUMN ledger.cold IS 'Whether the backend had to load the model first.';
COMMENT ON COLUMN ledger.stream_ms IS 'Milliseconds from the first content to the last, without waiting for the client.';
COMMENT ON COLUMN ledger.tool_bytes_per_token IS 'The figure that a tool call was counted by, where it was.';

-- migrate:down

DROP TABLE learned_figures, boot_progress;

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
