-- One-time codes and wrong guesses are kept under a keyed hash of the address.
-- Those under the address itself go: whoever waits for one asks again.

-- +goose Up
DELETE FROM one_time_codes;
DELETE FROM code_guesses;
ALTER TABLE one_time_codes RENAME COLUMN address TO address_hash;
ALTER TABLE code_guesses RENAME COLUMN address TO address_hash;

-- +goose Down
DELETE FROM one_time_codes;
DELETE FROM code_guesses;
ALTER TABLE one_time_codes RENAME COLUMN address_hash TO address;
ALTER TABLE code_guesses RENAME COLUMN address_hash TO address;
