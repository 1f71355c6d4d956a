-- +goose Up
-- Who is next at a resource that serves several types, whatever the length of the queue.
CREATE INDEX bookings_order ON bookings (organization_id, priority DESC, seq) WHERE stage = 'WAITING';

-- +goose Down
DROP INDEX bookings_order;
