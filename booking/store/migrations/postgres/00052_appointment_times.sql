-- What an appointment takes of its resource's time, with its buffers; until when a
-- temporary one is reserved; and the values of fields that change its length and price.

-- +goose Up
-- Without buffers, busy_from and busy_until are null: the appointment takes its own time.
ALTER TABLE bookings
    ADD COLUMN busy_from      timestamptz,
    ADD COLUMN busy_until     timestamptz,
    ADD COLUMN reserved_until timestamptz,
    ADD COLUMN adjusters      jsonb;

ALTER TABLE bookings DROP CONSTRAINT bookings_overlap;
ALTER TABLE bookings ADD CONSTRAINT bookings_overlap
    EXCLUDE USING gist (resource_id WITH =, tstzrange(COALESCE(busy_from, starts_at), COALESCE(busy_until, ends_at)) WITH &&)
    WHERE (starts_at IS NOT NULL AND status NOT IN ('CANCELED', 'REJECTED') AND stage NOT IN ('DONE', 'NO_SHOW', 'LEFT'));
CREATE INDEX bookings_appointments ON bookings (organization_id, starts_at)
    INCLUDE (resource_id, ends_at, busy_from, busy_until, id)
    WHERE starts_at IS NOT NULL AND status NOT IN ('CANCELED', 'REJECTED') AND stage NOT IN ('DONE', 'NO_SHOW', 'LEFT');
CREATE INDEX bookings_reserved ON bookings (reserved_until) WHERE reserved_until IS NOT NULL;

-- +goose Down
DROP INDEX bookings_reserved;
DROP INDEX bookings_appointments;
ALTER TABLE bookings DROP CONSTRAINT bookings_overlap;
ALTER TABLE bookings ADD CONSTRAINT bookings_overlap
    EXCLUDE USING gist (resource_id WITH =, tstzrange(starts_at, ends_at) WITH &&)
    WHERE (starts_at IS NOT NULL AND status NOT IN ('CANCELED', 'REJECTED') AND stage NOT IN ('DONE', 'NO_SHOW', 'LEFT'));
ALTER TABLE bookings DROP COLUMN adjusters, DROP COLUMN reserved_until, DROP COLUMN busy_until, DROP COLUMN busy_from;
