-- The addresses that a clinic's patients and devices share: a JSON list of IP
-- addresses and networks.

-- +goose Up
ALTER TABLE organizations ADD COLUMN clinic_addresses jsonb NOT NULL DEFAULT '[]';

-- +goose Down
ALTER TABLE organizations DROP COLUMN clinic_addresses;
