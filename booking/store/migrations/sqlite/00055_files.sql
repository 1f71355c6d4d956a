-- Files that customers and staff upload. Their contents are in a bucket, under
-- organization_id/id.

-- +goose Up
-- The id is the credential to read the file. A file of a profile has no booking.
-- A booking may be deleted before its files are.
CREATE TABLE files (
    id              text PRIMARY KEY,
    organization_id text NOT NULL REFERENCES organizations (id),
    customer_id     text REFERENCES customers (id),
    booking_id      text,
    name            text NOT NULL,
    content_type    text NOT NULL,
    size            integer NOT NULL,
    created_at      datetime NOT NULL
);
CREATE INDEX files_customer ON files (organization_id, customer_id);
CREATE INDEX files_booking ON files (booking_id) WHERE booking_id IS NOT NULL;

-- The keys of contents that have to be removed from the bucket, because their rows were
-- deleted.
CREATE TABLE file_removals (
    key          text PRIMARY KEY,
    requested_at datetime NOT NULL
);

-- +goose Down
DROP TABLE file_removals;
DROP TABLE files;
