-- Phones and browsers that pushes go to, what was pushed, and the places in a
-- queue that were told.

-- +goose Up
-- A token belongs to one person at a time, in one organization. A device that
-- changes hands gets a new id, so nothing on its way to it reaches the new owner.
CREATE TABLE devices (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    customer_id     text,
    member_id       text,
    platform        text NOT NULL CHECK (platform IN ('ios', 'android', 'web')),
    lang            text NOT NULL CHECK (lang IN ('en', 'ar')),
    token_hash      text NOT NULL UNIQUE,
    token_sealed    text NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    FOREIGN KEY (organization_id, customer_id) REFERENCES customers (organization_id, id),
    FOREIGN KEY (organization_id, member_id) REFERENCES members (organization_id, id),
    CHECK ((customer_id IS NULL) <> (member_id IS NULL))
);
CREATE INDEX devices_customer ON devices (organization_id, customer_id, updated_at) WHERE customer_id IS NOT NULL;
CREATE INDEX devices_member ON devices (organization_id, member_id, updated_at) WHERE member_id IS NOT NULL;

-- What became of each push that tells of an event. It is 'sending' from before
-- it is sent until the answer is there: what still is after a crash is in doubt.
CREATE TABLE push_log (
    notification_id text NOT NULL,
    device_id       text NOT NULL,
    organization_id text NOT NULL REFERENCES organizations (id),
    booking_id      text NOT NULL,
    type            text NOT NULL,
    status          text NOT NULL CHECK (status IN ('sending', 'refused', 'sent', 'failed', 'unregistered')),
    error           text NOT NULL DEFAULT '',
    at              timestamptz NOT NULL,
    PRIMARY KEY (notification_id, device_id)
);
CREATE INDEX push_log_at ON push_log (at);

-- Organizations where places may have changed since they were told. Whoever
-- sweeps one takes due_at away and holds it until leased_until.
CREATE TABLE position_marks (
    organization_id text PRIMARY KEY REFERENCES organizations (id),
    due_at          timestamptz,
    leased_until    timestamptz,
    CHECK (due_at IS NOT NULL OR leased_until IS NOT NULL)
);

-- The place each waiting booking was last told: by a push, and by a webhook.
-- sequence counts the tellings within a version of the booking; telling is the
-- place that was on its way to the phone at that sequence. It refers loosely for
-- the same reason as quotes.
CREATE TABLE position_states (
    booking_id  text PRIMARY KEY,
    version     bigint NOT NULL,
    sequence    integer NOT NULL,
    pushed      integer NOT NULL,
    hooked      integer NOT NULL,
    telling     integer NOT NULL,
    come_now_at timestamptz,
    updated_at  timestamptz NOT NULL
);
CREATE INDEX position_states_updated ON position_states (updated_at);

-- The place the customer was told when joining; 0 when the desk joined for them.
ALTER TABLE quotes ADD COLUMN position integer NOT NULL DEFAULT 0;

-- From which place, or likely wait in minutes, on a patient is asked to come; 0: never.
ALTER TABLE booking_types ADD COLUMN come_now_at_position integer NOT NULL DEFAULT 0 CHECK (come_now_at_position BETWEEN 0 AND 1000);
ALTER TABLE booking_types ADD COLUMN come_now_at_minutes integer NOT NULL DEFAULT 0 CHECK (come_now_at_minutes BETWEEN 0 AND 1440);

-- +goose Down
ALTER TABLE booking_types DROP COLUMN come_now_at_minutes;
ALTER TABLE booking_types DROP COLUMN come_now_at_position;
ALTER TABLE quotes DROP COLUMN position;
DROP TABLE position_states;
DROP TABLE position_marks;
DROP TABLE push_log;
DROP TABLE devices;
