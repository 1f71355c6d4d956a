-- Who comes, where it is another name than that of the customer: several people may
-- share a phone.

-- +goose Up
ALTER TABLE bookings ADD COLUMN first_name text NOT NULL DEFAULT '';
ALTER TABLE bookings ADD COLUMN last_name text NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE bookings DROP COLUMN last_name;
ALTER TABLE bookings DROP COLUMN first_name;
