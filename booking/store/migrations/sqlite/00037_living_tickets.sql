-- Those who are here, by the day their ticket is of: a new ticket passes over the
-- numbers of earlier days that are still in use.

-- +goose Up
CREATE INDEX bookings_here ON bookings (organization_id, local_day, ticket)
    WHERE stage IN ('WAITING', 'HELD', 'CALLED', 'SERVING');

-- +goose Down
DROP INDEX bookings_here;
