-- How people find an organization and come in: a short name that works wherever its id
-- does, the country whose phone numbers need no country code, and whether people may
-- join without signing in.

-- +goose Up
ALTER TABLE organizations ADD COLUMN short_name text;
ALTER TABLE organizations ADD COLUMN country text NOT NULL DEFAULT '';
ALTER TABLE organizations ADD COLUMN guest_join text NOT NULL DEFAULT 'off';
ALTER TABLE organizations ADD COLUMN on_site_code_sealed text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX organizations_short_name ON organizations (short_name) WHERE short_name IS NOT NULL;

-- +goose Down
DROP INDEX organizations_short_name;
ALTER TABLE organizations DROP COLUMN on_site_code_sealed;
ALTER TABLE organizations DROP COLUMN guest_join;
ALTER TABLE organizations DROP COLUMN country;
ALTER TABLE organizations DROP COLUMN short_name;
