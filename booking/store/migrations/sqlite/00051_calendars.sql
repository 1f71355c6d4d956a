-- When resources can be booked. The row without a resource is that of the organization,
-- for its resources that have no rules of their own.

-- +goose Up
-- A null is no rules of its own: of the organization, or the default.
CREATE TABLE calendars (
    organization_id text NOT NULL REFERENCES organizations (id),
    resource_id     text NOT NULL DEFAULT '',
    time_rules      text,
    off_rules       text,
    version         bigint NOT NULL,
    updated_at      datetime NOT NULL,
    PRIMARY KEY (organization_id, resource_id)
);

-- +goose Down
DROP TABLE calendars;
