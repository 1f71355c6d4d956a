-- The place that joining answered, to the customer or to the desk: webhooks are told
-- of changes from there on. Null: the booking joined before.

-- +goose Up
ALTER TABLE quotes ADD COLUMN answered integer;

-- +goose Down
ALTER TABLE quotes DROP COLUMN answered;
