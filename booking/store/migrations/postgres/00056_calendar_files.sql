-- The file of an appointment for calendars, and a feed of a resource's appointments.

-- +goose Up
-- The first booking of a visit that was rescheduled, and the versions of all those before
-- this one together. Visits that were rescheduled before this migration have no file yet
-- that a calendar could know, so each of their bookings is its own first one.
ALTER TABLE bookings
    ADD COLUMN origin_id      text NOT NULL DEFAULT '',
    ADD COLUMN origin_version bigint NOT NULL DEFAULT 0;
CREATE INDEX bookings_of_resource ON bookings (resource_id, starts_at) WHERE starts_at IS NOT NULL;

CREATE TABLE calendar_feeds (
    organization_id text NOT NULL REFERENCES organizations (id),
    resource_id     text NOT NULL REFERENCES resources (id),
    token_hash      text NOT NULL UNIQUE,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, resource_id)
);

-- +goose Down
DROP TABLE calendar_feeds;
DROP INDEX bookings_of_resource;
ALTER TABLE bookings DROP COLUMN origin_version, DROP COLUMN origin_id;
