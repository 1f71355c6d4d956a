-- Appointments: bookings with a beginning, an end and a resource from the start,
-- and what their customers have still to be reminded of.

-- +goose Up
ALTER TABLE bookings ADD COLUMN starts_at datetime CHECK (starts_at IS NULL OR resource_id IS NOT NULL);
ALTER TABLE bookings ADD COLUMN ends_at datetime CHECK ((starts_at IS NULL) = (ends_at IS NULL) AND ends_at >= starts_at);
ALTER TABLE bookings ADD COLUMN reminder_next text NOT NULL DEFAULT '' CHECK (reminder_next IN
    ('', 'oneDayBeforeAppointment', 'oneHourBeforeAppointment', 'tenMinutesBeforeAppointment', 'beforeAppointment', 'afterAppointment', 'oneDayAfterAppointment'));
ALTER TABLE bookings ADD COLUMN reminder_at datetime CHECK ((reminder_at IS NULL) = (reminder_next = ''));

CREATE INDEX bookings_slots ON bookings (resource_id, starts_at)
    WHERE starts_at IS NOT NULL AND status NOT IN ('CANCELED', 'REJECTED') AND stage NOT IN ('DONE', 'NO_SHOW', 'LEFT');
CREATE INDEX bookings_reminder ON bookings (reminder_at) WHERE reminder_at IS NOT NULL;

-- Nobody has two appointments at a time, whoever writes them. One that was
-- canceled, rejected or is over holds its time no longer. Back to back is no
-- overlap.
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

-- +goose Down
DROP TRIGGER bookings_overlap_update;
DROP TRIGGER bookings_overlap_insert;
DROP INDEX bookings_reminder;
DROP INDEX bookings_slots;
ALTER TABLE bookings DROP COLUMN reminder_at;
ALTER TABLE bookings DROP COLUMN reminder_next;
ALTER TABLE bookings DROP COLUMN ends_at;
ALTER TABLE bookings DROP COLUMN starts_at;
