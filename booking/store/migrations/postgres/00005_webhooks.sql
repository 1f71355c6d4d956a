-- Webhooks: where an organization wants to be told, and what became of telling it.

-- +goose Up
-- secret and old_secret are sealed; the old one signs too until old_secret_until.
-- failing_since is the first failure after the last success.
CREATE TABLE webhooks (
    id               text PRIMARY KEY,
    organization_id  text NOT NULL REFERENCES organizations (id),
    trigger          text NOT NULL CHECK (trigger <> ''),
    url              text NOT NULL CHECK (url <> ''),
    reference        text NOT NULL DEFAULT '',
    secret           text NOT NULL,
    old_secret       text NOT NULL DEFAULT '',
    old_secret_until timestamptz,
    created_at       timestamptz NOT NULL,
    failing_since    timestamptz,
    disabled_at      timestamptz,
    disabled_reason  text NOT NULL DEFAULT '',
    deleted_at       timestamptz,
    UNIQUE (organization_id, id)
);
CREATE UNIQUE INDEX webhooks_address ON webhooks (organization_id, trigger, url, reference) WHERE deleted_at IS NULL;

-- round grows with every replay: a job of an earlier round does nothing.
-- attempts counts all there were, failures those of this round.
CREATE TABLE webhook_deliveries (
    id              text PRIMARY KEY,
    organization_id text NOT NULL,
    webhook_id      text NOT NULL,
    booking_id      text NOT NULL,
    trigger         text NOT NULL,
    payload         text NOT NULL,
    status          text NOT NULL CHECK (status IN ('pending', 'delivered', 'failed', 'dropped')),
    reason          text NOT NULL DEFAULT '',
    round           integer NOT NULL DEFAULT 1,
    attempts        integer NOT NULL DEFAULT 0,
    failures        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    created_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    CHECK ((status = 'pending') = (next_attempt_at IS NOT NULL)),
    FOREIGN KEY (organization_id, webhook_id) REFERENCES webhooks (organization_id, id)
);
CREATE INDEX webhook_deliveries_organization ON webhook_deliveries (organization_id, id);
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_booking ON webhook_deliveries (booking_id, id);
CREATE INDEX webhook_deliveries_created ON webhook_deliveries (created_at);

-- status_code is 0 where no answer came, and error says why.
CREATE TABLE webhook_attempts (
    delivery_id text NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
    number      integer NOT NULL,
    at          timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    status_code integer NOT NULL,
    error       text NOT NULL DEFAULT '',
    answer      text NOT NULL DEFAULT '',
    PRIMARY KEY (delivery_id, number)
);

-- +goose Down
DROP TABLE webhook_attempts, webhook_deliveries, webhooks;
