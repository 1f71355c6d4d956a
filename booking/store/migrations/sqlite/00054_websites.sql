-- The booking pages of organizations. A version that was never stored is the default one
-- or, for the default version, made from the organization.

-- +goose Up
CREATE TABLE websites (
    organization_id text NOT NULL REFERENCES organizations (id),
    version         text NOT NULL CHECK (version IN ('default', 'draft')),
    data            text NOT NULL,
    updated_at      datetime NOT NULL,
    PRIMARY KEY (organization_id, version)
);

-- +goose Down
DROP TABLE websites;
