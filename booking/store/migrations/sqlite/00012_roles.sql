-- Members who show screens, and whose bookings a member may look at.

-- +goose Up
-- A CHECK is nothing but text in the schema, so it is rewritten in place, as
-- SQLite's own page on ALTER TABLE describes: making the table again would take
-- it away from those that refer to it. RESET makes the new text count.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, '''provider'', ''receptionist'')', '''provider'', ''receptionist'', ''screen'')')
WHERE type = 'table' AND name = 'members';
UPDATE sqlite_schema SET sql = replace(sql, '''display'', ''organization'')', '''display'', ''organization'', ''member'')')
WHERE type = 'table' AND name = 'revocations';
PRAGMA writable_schema = RESET;

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
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = replace(sql, '''receptionist'', ''screen'')', '''receptionist'')')
WHERE type = 'table' AND name = 'members';
UPDATE sqlite_schema SET sql = replace(sql, '''organization'', ''member'')', '''organization'')')
WHERE type = 'table' AND name = 'revocations';
PRAGMA writable_schema = RESET;
