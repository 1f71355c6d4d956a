-- What an organization spends on messages with one-time codes has a bound each
-- day, and wrong guesses count for the code, not for the address.

-- +goose Up
-- Messages with codes that were sent in a day of UTC, to all countries (empty)
-- and to each foreign one, by its calling code.
CREATE TABLE code_budgets (
    organization_id text NOT NULL REFERENCES organizations (id),
    day             timestamptz NOT NULL,
    country         text NOT NULL,
    sent            integer NOT NULL,
    PRIMARY KEY (organization_id, day, country)
);
CREATE INDEX code_budgets_day ON code_budgets (day);
-- Null: as the configuration says.
ALTER TABLE organizations ADD COLUMN otp_daily_limit integer;
-- failures of code_guesses are those at the newest code of the address from now
-- on.
UPDATE code_guesses SET failures = 0;

-- +goose Down
ALTER TABLE organizations DROP COLUMN otp_daily_limit;
DROP TABLE code_budgets;
