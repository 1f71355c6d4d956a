-- What customers say of themselves without proof: nobody signs in with it, so
-- nobody can take a number before its owner comes.

-- +goose Up
ALTER TABLE customers ADD COLUMN claimed_phone text;
ALTER TABLE customers ADD COLUMN claimed_email text;

-- +goose Down
ALTER TABLE customers DROP COLUMN claimed_phone;
ALTER TABLE customers DROP COLUMN claimed_email;
