-- API keys with scopes, an end, a successor and a count of what they were used
-- for; the web origins of organizations.

-- +goose Up
-- role is that of the member who made the key: it does no more than they may.
-- A key that was rotated is replaced_at a moment and expires a day later; until
-- then it shares its name with the new one.
ALTER TABLE api_keys ADD COLUMN scopes text NOT NULL DEFAULT '["admin"]';
ALTER TABLE api_keys ADD COLUMN role text NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN expires_at timestamptz;
ALTER TABLE api_keys ADD COLUMN replaced_at timestamptz CHECK (replaced_at IS NULL OR expires_at IS NOT NULL);
ALTER TABLE api_keys ADD COLUMN last_used_at timestamptz;
ALTER TABLE api_keys ADD COLUMN requests bigint NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN errors bigint NOT NULL DEFAULT 0;
DROP INDEX api_keys_name;
CREATE UNIQUE INDEX api_keys_name ON api_keys (COALESCE(organization_id, ''), name) WHERE replaced_at IS NULL;

-- Whose pages may call the API for an organization, or show its widgets.
CREATE TABLE organization_origins (
    organization_id text NOT NULL REFERENCES organizations (id),
    origin          text NOT NULL CHECK (origin <> ''),
    PRIMARY KEY (organization_id, origin)
);
CREATE INDEX organization_origins_origin ON organization_origins (origin);

-- +goose Down
DROP TABLE organization_origins;
DELETE FROM api_keys WHERE replaced_at IS NOT NULL OR expires_at IS NOT NULL OR scopes <> '["admin"]';
DROP INDEX api_keys_name;
CREATE UNIQUE INDEX api_keys_name ON api_keys (COALESCE(organization_id, ''), name);
ALTER TABLE api_keys DROP COLUMN errors;
ALTER TABLE api_keys DROP COLUMN requests;
ALTER TABLE api_keys DROP COLUMN last_used_at;
ALTER TABLE api_keys DROP COLUMN replaced_at;
ALTER TABLE api_keys DROP COLUMN expires_at;
ALTER TABLE api_keys DROP COLUMN role;
ALTER TABLE api_keys DROP COLUMN scopes;
