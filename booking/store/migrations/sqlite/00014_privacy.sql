-- +goose Up
-- Of a customer who was erased the row stays, with nothing in it: their visits
-- count as before.
ALTER TABLE customers ADD COLUMN erased_at datetime;

-- What is kept about a booking's messages is found by the booking, and events
-- that have been told are deleted by their age.
CREATE INDEX message_attempts_booking ON message_attempts (booking_id);
CREATE INDEX events_created ON events (created_at);

-- +goose Down
DROP INDEX events_created;
DROP INDEX message_attempts_booking;
ALTER TABLE customers DROP COLUMN erased_at;
