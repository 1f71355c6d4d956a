-- What an appointment takes of its resource's time, with its buffers; until when a
-- temporary one is reserved; and the values of fields that change its length and price.

-- +goose Up
-- Without buffers, busy_from and busy_until are null: the appointment takes its own time.
ALTER TABLE bookings ADD COLUMN busy_from datetime;
ALTER TABLE bookings ADD COLUMN busy_until datetime;
ALTER TABLE bookings ADD COLUMN reserved_until datetime;
ALTER TABLE bookings ADD COLUMN adjusters text;

DROP TRIGGER bookings_overlap_update;
DROP TRIGGER bookings_overlap_insert;
-- +goose StatementBegin
CREATE TRIGGER bookings_overlap_insert BEFORE INSERT ON bookings
WHEN NEW.starts_at IS NOT NULL AND NEW.status NOT IN ('CANCELED', 'REJECTED') AND NEW.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT')
BEGIN
    SELECT RAISE(ABORT, 'bookings_overlap') FROM bookings b
    WHERE b.resource_id = NEW.resource_id
        AND COALESCE(b.busy_from, b.starts_at) < COALESCE(NEW.busy_until, NEW.ends_at)
        AND COALESCE(b.busy_until, b.ends_at) > COALESCE(NEW.busy_from, NEW.starts_at)
        AND b.starts_at IS NOT NULL AND b.status NOT IN ('CANCELED', 'REJECTED') AND b.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER bookings_overlap_update BEFORE UPDATE OF resource_id, starts_at, ends_at, busy_from, busy_until, status, stage ON bookings
WHEN NEW.starts_at IS NOT NULL AND NEW.status NOT IN ('CANCELED', 'REJECTED') AND NEW.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT')
BEGIN
    SELECT RAISE(ABORT, 'bookings_overlap') FROM bookings b
    WHERE b.seq <> NEW.seq AND b.resource_id = NEW.resource_id
        AND COALESCE(b.busy_from, b.starts_at) < COALESCE(NEW.busy_until, NEW.ends_at)
        AND COALESCE(b.busy_until, b.ends_at) > COALESCE(NEW.busy_from, NEW.starts_at)
        AND b.starts_at IS NOT NULL AND b.status NOT IN ('CANCELED', 'REJECTED') AND b.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT');
END;
-- +goose StatementEnd
-- All that a search for free times reads is in the index.
CREATE INDEX bookings_appointments ON bookings (organization_id, starts_at, resource_id, ends_at, busy_from, busy_until, id, status, stage)
    WHERE starts_at IS NOT NULL AND status NOT IN ('CANCELED', 'REJECTED') AND stage NOT IN ('DONE', 'NO_SHOW', 'LEFT');
CREATE INDEX bookings_reserved ON bookings (reserved_until) WHERE reserved_until IS NOT NULL;

-- +goose Down
DROP INDEX bookings_reserved;
DROP INDEX bookings_appointments;
DROP TRIGGER bookings_overlap_update;
DROP TRIGGER bookings_overlap_insert;
-- +goose StatementBegin
CREATE TRIGGER bookings_overlap_insert BEFORE INSERT ON bookings
WHEN NEW.starts_at IS NOT NULL AND NEW.status NOT IN ('CANCELED', 'REJECTED') AND NEW.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT')
BEGIN
    SELECT RAISE(ABORT, 'bookings_overlap') FROM bookings b
    WHERE b.resource_id = NEW.resource_id AND b.starts_at < NEW.ends_at AND b.ends_at > NEW.starts_at
        AND b.starts_at IS NOT NULL AND b.status NOT IN ('CANCELED', 'REJECTED') AND b.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER bookings_overlap_update BEFORE UPDATE OF resource_id, starts_at, ends_at, status, stage ON bookings
WHEN NEW.starts_at IS NOT NULL AND NEW.status NOT IN ('CANCELED', 'REJECTED') AND NEW.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT')
BEGIN
    SELECT RAISE(ABORT, 'bookings_overlap') FROM bookings b
    WHERE b.seq <> NEW.seq AND b.resource_id = NEW.resource_id AND b.starts_at < NEW.ends_at AND b.ends_at > NEW.starts_at
        AND b.starts_at IS NOT NULL AND b.status NOT IN ('CANCELED', 'REJECTED') AND b.stage NOT IN ('DONE', 'NO_SHOW', 'LEFT');
END;
-- +goose StatementEnd
ALTER TABLE bookings DROP COLUMN adjusters;
ALTER TABLE bookings DROP COLUMN reserved_until;
ALTER TABLE bookings DROP COLUMN busy_until;
ALTER TABLE bookings DROP COLUMN busy_from;
