-- Requests that came with an Idempotency-Key, and what they were answered.

-- +goose Up
-- A request is running until its first transaction commits, which makes it
-- committed, and done when its answer is kept. So one that a crash cut short
-- either has changed nothing, and is run again, or never is. The organization of
-- a request about the account is empty. What is older than a day is deleted.
CREATE TABLE idempotency_keys (
    organization_id text NOT NULL,
    subject         text NOT NULL, -- whose key it is: kind and id of the credential
    idempotency_key text NOT NULL,
    request_hash    text NOT NULL,
    run             text NOT NULL UNIQUE, -- of several tries, the one that may commit
    state           text NOT NULL CHECK (state IN ('running', 'committed', 'done')),
    booking_id      text NOT NULL, -- that the request changed, if any
    status          integer NOT NULL,
    header          text NOT NULL, -- sealed, as is the body
    body            text NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, subject, idempotency_key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

-- +goose Down
DROP TABLE idempotency_keys;
