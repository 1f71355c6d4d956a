-- How often each network has guessed at the newest code of an address: a JSON
-- object by keyed hashes of networks.

-- +goose Up
ALTER TABLE code_guesses ADD COLUMN networks text NOT NULL DEFAULT '{}';

-- +goose Down
ALTER TABLE code_guesses DROP COLUMN networks;
