-- Lists of bookings are in the order of their visits.

-- +goose Up
CREATE INDEX bookings_visits ON bookings (organization_id, (COALESCE(starts_at, called_at, created_at)), seq);

-- +goose Down
DROP INDEX bookings_visits;
