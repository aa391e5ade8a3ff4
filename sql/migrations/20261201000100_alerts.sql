-- migrate:up

-- What needs a person: written by whoever finds it, posted to GATEWAY_ALERT_URL by one authz.
CREATE TABLE alerts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (name <> ''),
    subject text NOT NULL,
    period text NOT NULL CHECK (period <> ''),
    source text NOT NULL CHECK (source <> ''),
    is_lasting boolean NOT NULL,
    severity text NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    tenant text,
    key text,
    node text,
    backend text,
    value bigint NOT NULL,
    summary text NOT NULL,
    action text NOT NULL,
    raised_at timestamptz NOT NULL,
    recovered_at timestamptz CHECK (recovered_at IS NULL OR is_lasting),
    posted_at timestamptz,
    due_at timestamptz,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    UNIQUE (name, subject, period)
);

CREATE UNIQUE INDEX alerts_open_key ON alerts (name, subject) WHERE is_lasting AND recovered_at IS NULL;

CREATE INDEX alerts_due_idx ON alerts (due_at) WHERE due_at IS NOT NULL;

COMMENT ON TABLE alerts IS 'Events that need a person, each once in its period.';
COMMENT ON COLUMN alerts.subject IS 'What it is about: an event is a name and a subject.';
COMMENT ON COLUMN alerts.period IS 'The window of a budget, else the hour or day in which it was raised.';
COMMENT ON COLUMN alerts.source IS 'Who raised it, and alone says that it has recovered.';
COMMENT ON COLUMN alerts.is_lasting IS 'Whether it can recover; other events have simply happened.';
COMMENT ON COLUMN alerts.posted_at IS 'When its receiver took it; null if it has not, or was never asked.';
COMMENT ON COLUMN alerts.due_at IS 'When it is posted next, raised or recovered; null if nothing is to be posted.';
COMMENT ON COLUMN alerts.attempts IS 'How often that was tried.';

-- Which process speaks for all of its kind, for as long as it renews this.
CREATE TABLE alert_leases (
    name text PRIMARY KEY CHECK (name <> ''),
    holder uuid NOT NULL,
    until timestamptz NOT NULL
);

COMMENT ON TABLE alert_leases IS 'The one process that watches, or posts, for all of its kind.';

GRANT SELECT, INSERT, DELETE, UPDATE (recovered_at, posted_at, due_at, attempts) ON alerts TO gateway_authz;

GRANT SELECT, INSERT, UPDATE (recovered_at, due_at, attempts) ON alerts TO gateway_metering;

GRANT SELECT ON alerts TO gateway_admin;

GRANT SELECT, INSERT, UPDATE (holder, until) ON alert_leases TO gateway_authz, gateway_metering;

-- migrate:down

DROP TABLE alert_leases;

DROP TABLE alerts;
