-- +goose Up
-- When what an event leaves behind (deliveries, pushes, messages) was written;
-- empty also for events that concerned nobody outside.
ALTER TABLE events ADD COLUMN announced_at datetime;

-- +goose Down
ALTER TABLE events DROP COLUMN announced_at;
