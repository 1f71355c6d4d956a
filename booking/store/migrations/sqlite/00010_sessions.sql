-- Sessions that hand out a new refresh token each time, and guesses that are
-- counted for an address, whatever code they were at.

-- +goose Up
-- A person who signed in. Access tokens name it as sid. Its refresh tokens are
-- numbered; the one numbered refreshes is good. None is kept: each is made from
-- the session, its number and the service's secret. A session that is ended
-- expires at that moment.
CREATE TABLE sessions (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    kind            text NOT NULL CHECK (kind IN ('customer', 'member')),
    subject_id      text NOT NULL,
    refreshes       integer NOT NULL DEFAULT 0,
    refreshed_at    datetime NOT NULL,
    expires_at      datetime NOT NULL,
    created_at      datetime NOT NULL
);
CREATE INDEX sessions_subject ON sessions (organization_id, kind, subject_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

-- The tokens were random and can't be numbered: everybody signs in once more.
DROP TABLE refresh_tokens;

-- Wrong one-time codes that somebody gave for an address, and when the last was.
CREATE TABLE code_guesses (
    organization_id text NOT NULL REFERENCES organizations (id),
    kind            text NOT NULL CHECK (kind IN ('customer', 'member')),
    address         text NOT NULL,
    failures        integer NOT NULL,
    failed_at       datetime NOT NULL,
    PRIMARY KEY (organization_id, kind, address)
);
CREATE INDEX code_guesses_age ON code_guesses (failed_at);
CREATE INDEX one_time_codes_age ON one_time_codes (created_at);
ALTER TABLE one_time_codes DROP COLUMN failures;

-- The language a customer signed in with; codes do not stay to tell.
ALTER TABLE customers ADD COLUMN lang text NOT NULL DEFAULT '';
UPDATE customers SET lang = COALESCE((
    SELECT c.lang FROM one_time_codes c
    WHERE c.organization_id = customers.organization_id AND c.kind = 'customer' AND c.address IN (customers.phone, customers.email)
    ORDER BY c.created_at DESC LIMIT 1), '');

-- +goose Down
ALTER TABLE customers DROP COLUMN lang;
ALTER TABLE one_time_codes ADD COLUMN failures integer NOT NULL DEFAULT 0;
DROP INDEX one_time_codes_age;
DROP TABLE code_guesses;
DROP TABLE sessions;
CREATE TABLE refresh_tokens (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    kind            text NOT NULL CHECK (kind IN ('customer', 'member')),
    subject_id      text NOT NULL,
    token_hash      text NOT NULL UNIQUE,
    expires_at      datetime NOT NULL,
    revoked_at      datetime,
    created_at      datetime NOT NULL
);
