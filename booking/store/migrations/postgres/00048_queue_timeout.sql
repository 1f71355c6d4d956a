-- How long a queued booking of the type waits, in minutes, where none is asked for.

-- +goose Up
ALTER TABLE booking_types ADD COLUMN queue_timeout_minutes integer NOT NULL DEFAULT 180 CHECK (queue_timeout_minutes BETWEEN 5 AND 180);

-- +goose Down
ALTER TABLE booking_types DROP COLUMN queue_timeout_minutes;
