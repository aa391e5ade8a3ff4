-- migrate:up

-- Who may use the gateway. A limit that is null does not exist.
CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    timezone text NOT NULL DEFAULT 'UTC',
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled')),
    requests_per_minute bigint CHECK (requests_per_minute > 0),
    tokens_per_minute bigint CHECK (tokens_per_minute > 0),
    concurrency bigint CHECK (concurrency > 0),
    tokens_per_day bigint CHECK (tokens_per_day > 0),
    tokens_per_month bigint CHECK (tokens_per_month > 0),
    tokens_total bigint CHECK (tokens_total > 0),
    version bigint NOT NULL DEFAULT 1,
    published_version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- What a tenant hands out. Limits and allowlists hang on the key, never on a secret.
CREATE TABLE keys (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'disabled', 'revoked')),
    models text[],
    cidrs cidr[],
    expires_at timestamptz,
    max_output bigint CHECK (max_output > 0),
    requests_per_minute bigint CHECK (requests_per_minute > 0),
    tokens_per_minute bigint CHECK (tokens_per_minute > 0),
    concurrency bigint CHECK (concurrency > 0),
    tokens_per_day bigint CHECK (tokens_per_day > 0),
    tokens_per_month bigint CHECK (tokens_per_month > 0),
    tokens_total bigint CHECK (tokens_total > 0),
    version bigint NOT NULL DEFAULT 1,
    published_version bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, name)
);

-- The few versions that Redis has not been told of yet.
CREATE INDEX tenants_unpublished ON tenants (id) WHERE published_version < version;

CREATE INDEX keys_unpublished ON keys (id) WHERE published_version < version;

-- What a client presents; only its public handle, a keyed tag and an Argon2id hash are kept.
CREATE TABLE secrets (
    lookup text COLLATE "C" PRIMARY KEY CHECK (lookup ~ '^nz_[0-9A-Za-z]{8}$'),
    key_id uuid NOT NULL REFERENCES keys (id),
    tag bytea NOT NULL CHECK (octet_length(tag) = 32),
    pepper_id text NOT NULL,
    hash text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX secrets_key ON secrets (key_id);

-- A Caddy process's journal: known from its first committed boot line on.
-- eof_at: Redis's clock, read before the last end of file that metering has committed to.
CREATE TABLE nodes (
    node uuid PRIMARY KEY,
    boot uuid NOT NULL,
    eof_at timestamptz,
    retired_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Where metering stands in each journal file; fingerprint is the SHA-256 of the file's first line,
-- marker that of the last 4 KiB before the position.
CREATE TABLE journal_files (
    node uuid NOT NULL,
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    generation int NOT NULL DEFAULT 0,
    name text NOT NULL,
    position bigint NOT NULL,
    marker bytea NOT NULL,
    is_finished boolean NOT NULL DEFAULT false,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node, fingerprint, generation)
);

-- Sequence numbers of our lines per boot: next is the lowest one not seen yet,
-- ahead are those seen beyond it, lost are those given up.
CREATE TABLE journal_sequences (
    node uuid NOT NULL,
    boot uuid NOT NULL,
    next bigint NOT NULL,
    ahead bigint[] NOT NULL DEFAULT '{}',
    lost bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (node, boot)
);

-- Requests whose open line is committed and whose record is not.
CREATE TABLE open_requests (
    request_id uuid PRIMARY KEY,
    node uuid NOT NULL,
    boot uuid NOT NULL,
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    reserved_input bigint NOT NULL,
    reserved_output bigint NOT NULL,
    day date NOT NULL,
    month date NOT NULL,
    deadline timestamptz NOT NULL
);

CREATE INDEX open_requests_tenant ON open_requests (tenant_id);

CREATE INDEX open_requests_node ON open_requests (node);

-- The lowest UUIDv7 of a moment: partitions by day are ranges of request ids.
CREATE FUNCTION uuid7_floor(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;

-- The append-only truth about what was billed: entry 0 settles a request, entry 1 adjusts it.
CREATE TABLE ledger (
    request_id uuid NOT NULL,
    entry smallint NOT NULL CHECK (entry IN (0, 1)),
    at timestamptz NOT NULL,
    node uuid NOT NULL,
    boot uuid NOT NULL,
    seq bigint,
    ip text,
    lookup text,
    tenant_id uuid,
    key_id uuid,
    method text,
    path text,
    model text,
    backend text,
    stream boolean,
    outcome text NOT NULL,
    reason text,
    status int,
    upstream_status int,
    reserved_input bigint,
    reserved_output bigint,
    day date,
    month date,
    max_output bigint,
    terminal boolean,
    reported_input_tokens bigint,
    reported_output_tokens bigint,
    cached_tokens bigint,
    deltas bigint,
    output_bytes bigint,
    prompt_bytes bigint,
    images int,
    ttft_ms bigint,
    duration_ms bigint,
    load_ms bigint,
    prompt_eval_ms bigint,
    eval_ms bigint,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    overrun_tokens bigint NOT NULL DEFAULT 0,
    usage_source text NOT NULL CHECK (usage_source IN ('reported', 'counted', 'reserved', 'none')),
    input_bytes_per_token double precision,
    output_bytes_per_token double precision,
    output_tokens_per_delta double precision,
    output_tokens_per_s double precision,
    PRIMARY KEY (request_id, entry)
) PARTITION BY RANGE (request_id);

CREATE INDEX ledger_tenant ON ledger (tenant_id, request_id);

-- A day's partition, attached rather than created in place: that waits for no reader of the ledger.
CREATE FUNCTION ensure_ledger_partition(day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    part text := 'ledger_' || to_char(day, 'YYYYMMDD');
    midnight timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_ledger_partition'));
    IF to_regclass(part) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE ledger INCLUDING ALL)', part);
    EXECUTE format(
        'ALTER TABLE ledger ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        part, uuid7_floor(midnight), uuid7_floor(midnight + interval '1 day')
    );
END
$$;

-- Forgets a day of the ledger, unless somebody reads it right now or Redis has not been told all of it.
CREATE FUNCTION drop_ledger_partition(day date) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '2s' AS $$
DECLARE
    midnight timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF EXISTS (
        SELECT FROM unpublished
        WHERE request_id >= uuid7_floor(midnight) AND request_id < uuid7_floor(midnight + interval '1 day')
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE %I', 'ledger_' || to_char(day, 'YYYYMMDD'));
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- Ledger rows that Redis has not been told of yet.
CREATE TABLE unpublished (
    request_id uuid NOT NULL,
    entry smallint NOT NULL,
    tenant_id uuid NOT NULL,
    key_id uuid NOT NULL,
    PRIMARY KEY (request_id, entry)
);

CREATE INDEX unpublished_tenant ON unpublished (tenant_id);

-- What a tenant or a key (scope_id) has used of a day, a month, in total.
CREATE TABLE budget_windows (
    scope_id uuid NOT NULL,
    period text NOT NULL CHECK (period IN ('day', 'month', 'total')),
    start date NOT NULL,
    tenant_id uuid NOT NULL,
    used bigint NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (scope_id, period, start)
) WITH (fillfactor = 70);

CREATE INDEX budget_windows_tenant ON budget_windows (tenant_id);

-- Journal lines that could not be understood, kept whole up to a bound.
CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node uuid NOT NULL,
    fingerprint bytea NOT NULL,
    generation int NOT NULL,
    position bigint NOT NULL,
    length bigint NOT NULL,
    sha256 bytea NOT NULL,
    reason text NOT NULL,
    raw bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    is_replay_wanted boolean NOT NULL DEFAULT false,
    replayed_at timestamptz,
    UNIQUE (node, fingerprint, generation, position)
);

-- What each model has shown: bytes per token and tokens per second, as moving averages.
CREATE TABLE model_ratios (
    model text PRIMARY KEY,
    input_bytes_per_token double precision NOT NULL,
    output_bytes_per_token double precision NOT NULL,
    output_tokens_per_delta double precision NOT NULL,
    output_tokens_per_s double precision NOT NULL,
    -- The most input tokens ever reported beyond the bytes of a prompt: what the model's template adds.
    template_tokens bigint NOT NULL DEFAULT 0,
    samples bigint NOT NULL DEFAULT 0
);

-- migrate:down

DROP TABLE model_ratios, dead_letters, budget_windows, unpublished, ledger, open_requests,
    journal_sequences, journal_files, nodes, secrets, keys, tenants;

DROP FUNCTION drop_ledger_partition (date);

DROP FUNCTION ensure_ledger_partition (date);

DROP FUNCTION uuid7_floor (timestamptz);
