-- Appointments: bookings with a beginning, an end and a resource from the start,
-- and what their customers have still to be reminded of.

-- +goose Up
CREATE EXTENSION IF NOT EXISTS btree_gist;

ALTER TABLE bookings
    ADD COLUMN starts_at     timestamptz,
    ADD COLUMN ends_at       timestamptz,
    ADD COLUMN reminder_at   timestamptz,
    ADD COLUMN reminder_next text NOT NULL DEFAULT '' CHECK (reminder_next IN
        ('', 'oneDayBeforeAppointment', 'oneHourBeforeAppointment', 'tenMinutesBeforeAppointment', 'beforeAppointment', 'afterAppointment', 'oneDayAfterAppointment')),
    ADD CHECK ((starts_at IS NULL) = (ends_at IS NULL) AND ends_at >= starts_at),
    ADD CHECK (starts_at IS NULL OR resource_id IS NOT NULL),
    ADD CHECK ((reminder_at IS NULL) = (reminder_next = ''));

-- Nobody has two appointments at a time, whoever writes them. One that was
-- canceled, rejected or is over holds its time no longer. Back to back is no
-- overlap: a range has its beginning and not its end.
ALTER TABLE bookings ADD CONSTRAINT bookings_overlap
    EXCLUDE USING gist (resource_id WITH =, tstzrange(starts_at, ends_at) WITH &&)
    WHERE (starts_at IS NOT NULL AND status NOT IN ('CANCELED', 'REJECTED') AND stage NOT IN ('DONE', 'NO_SHOW', 'LEFT'));
CREATE INDEX bookings_reminder ON bookings (reminder_at) WHERE reminder_at IS NOT NULL;

-- +goose Down
DROP INDEX bookings_reminder;
ALTER TABLE bookings DROP CONSTRAINT bookings_overlap,
    DROP COLUMN starts_at, DROP COLUMN ends_at, DROP COLUMN reminder_at, DROP COLUMN reminder_next;
