-- The custom fields of an organization: those of its customers and those of its bookings.

-- +goose Up
-- retired are the ids of deleted fields whose values stay hidden from customers.
CREATE TABLE custom_fields (
    organization_id text NOT NULL REFERENCES organizations (id),
    kind            text NOT NULL CHECK (kind IN ('customer', 'booking')),
    fields          text NOT NULL,
    retired         text,
    updated_at      datetime NOT NULL,
    PRIMARY KEY (organization_id, kind)
);

-- +goose Down
DROP TABLE custom_fields;
