-- The token of a ticket, as a keyed hash: short enough for a text message. Null: the
-- booking was made when tickets had signed tokens.

-- +goose Up
ALTER TABLE bookings ADD COLUMN ticket_hash text;
CREATE UNIQUE INDEX bookings_ticket_hash ON bookings (ticket_hash) WHERE ticket_hash IS NOT NULL;

-- +goose Down
DROP INDEX bookings_ticket_hash;
ALTER TABLE bookings DROP COLUMN ticket_hash;
