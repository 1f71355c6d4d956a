-- What carriers report of messages they took: delivery is empty while nothing is
-- known.

-- +goose Up
ALTER TABLE message_attempts ADD COLUMN delivery text NOT NULL DEFAULT '' CHECK (delivery IN ('', 'delivered', 'undelivered', 'failed'));
ALTER TABLE message_attempts ADD COLUMN delivery_error text NOT NULL DEFAULT '';
ALTER TABLE message_attempts ADD COLUMN delivery_at datetime;
CREATE INDEX message_attempts_provider ON message_attempts (provider_id) WHERE provider_id <> '';

-- +goose Down
DROP INDEX message_attempts_provider;
ALTER TABLE message_attempts DROP COLUMN delivery_at;
ALTER TABLE message_attempts DROP COLUMN delivery_error;
ALTER TABLE message_attempts DROP COLUMN delivery;
