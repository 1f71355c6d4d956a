-- A device belongs to the session that registered it, and goes when that is ended.
-- Null: it was registered before.

-- +goose Up
ALTER TABLE devices ADD COLUMN session_id text;
CREATE INDEX devices_session ON devices (session_id);

-- +goose Down
DROP INDEX devices_session;
ALTER TABLE devices DROP COLUMN session_id;
