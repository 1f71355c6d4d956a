-- Members who show screens, and whose bookings a member may look at.

-- +goose Up
ALTER TABLE members DROP CONSTRAINT members_role_check,
    ADD CONSTRAINT members_role_check CHECK (role IN ('owner', 'admin', 'provider', 'receptionist', 'screen'));
ALTER TABLE revocations DROP CONSTRAINT revocations_kind_check,
    ADD CONSTRAINT revocations_kind_check CHECK (kind IN ('session', 'key', 'display', 'organization', 'member'));

-- Besides the resources that name them, a provider may look at the bookings of
-- others: the confirmed ones, the requests that wait for them, or both.
CREATE TABLE member_views (
    organization_id text NOT NULL,
    member_id       text NOT NULL,
    resource_id     text NOT NULL,
    confirmed       boolean NOT NULL,
    requests        boolean NOT NULL,
    PRIMARY KEY (member_id, resource_id),
    FOREIGN KEY (organization_id, member_id) REFERENCES members (organization_id, id) ON DELETE CASCADE,
    FOREIGN KEY (organization_id, resource_id) REFERENCES resources (organization_id, id) ON DELETE CASCADE,
    CHECK (confirmed OR requests)
);
CREATE INDEX member_views_organization ON member_views (organization_id);

-- +goose Down
DROP TABLE member_views;
DELETE FROM revocations WHERE kind = 'member';
DELETE FROM members WHERE role = 'screen';
ALTER TABLE revocations DROP CONSTRAINT revocations_kind_check,
    ADD CONSTRAINT revocations_kind_check CHECK (kind IN ('session', 'key', 'display', 'organization'));
ALTER TABLE members DROP CONSTRAINT members_role_check,
    ADD CONSTRAINT members_role_check CHECK (role IN ('owner', 'admin', 'provider', 'receptionist'));
