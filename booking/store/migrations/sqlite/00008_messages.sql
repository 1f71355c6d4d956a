-- Messages to people by e-mail, SMS and WhatsApp.

-- +goose Up
-- What an organization says in place of our own words; an empty text is ours.
CREATE TABLE message_wordings (
    organization_id text NOT NULL REFERENCES organizations (id),
    template        text NOT NULL,
    lang            text NOT NULL CHECK (lang IN ('en', 'ar')),
    subject         text NOT NULL,
    text            text NOT NULL,
    updated_at      datetime NOT NULL,
    PRIMARY KEY (organization_id, template, lang)
);

-- Which reminders an organization sends, and by which methods, the preferred
-- first; a reminder without a row is sent as we would.
CREATE TABLE message_reminders (
    organization_id text NOT NULL REFERENCES organizations (id),
    reminder        text NOT NULL,
    methods         text NOT NULL,
    updated_at      datetime NOT NULL,
    PRIMARY KEY (organization_id, reminder)
);

-- Every attempt to send a message, without its text and without an address.
CREATE TABLE message_attempts (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    message_id      text NOT NULL,
    booking_id      text NOT NULL,
    template        text NOT NULL,
    method          text NOT NULL,
    attempt         integer NOT NULL,
    status          text NOT NULL CHECK (status IN ('sent', 'retried', 'failed', 'dropped')),
    provider_id     text NOT NULL,
    error           text NOT NULL,
    duration_ms     bigint NOT NULL,
    created_at      datetime NOT NULL
);
CREATE INDEX message_attempts_message ON message_attempts (message_id);
CREATE INDEX message_attempts_organization ON message_attempts (organization_id, id);
CREATE INDEX message_attempts_created ON message_attempts (created_at);

-- The language somebody signed in with is the one to write to them in.
ALTER TABLE one_time_codes ADD COLUMN lang text NOT NULL DEFAULT 'en';

-- +goose Down
ALTER TABLE one_time_codes DROP COLUMN lang;
DROP TABLE message_attempts;
DROP TABLE message_reminders;
DROP TABLE message_wordings;
