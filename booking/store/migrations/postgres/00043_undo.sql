-- What staff did last to a booking, until when they may take it back, and where it
-- then goes back to.

-- +goose Up
ALTER TABLE bookings ADD COLUMN undo_action text NOT NULL DEFAULT '';
ALTER TABLE bookings ADD COLUMN undo_until timestamptz;
ALTER TABLE bookings ADD COLUMN undo_status text NOT NULL DEFAULT '';
ALTER TABLE bookings ADD COLUMN undo_stage text NOT NULL DEFAULT '';
ALTER TABLE bookings ADD COLUMN undo_ends_at timestamptz;

-- +goose Down
ALTER TABLE bookings DROP COLUMN undo_ends_at;
ALTER TABLE bookings DROP COLUMN undo_stage;
ALTER TABLE bookings DROP COLUMN undo_status;
ALTER TABLE bookings DROP COLUMN undo_until;
ALTER TABLE bookings DROP COLUMN undo_action;
