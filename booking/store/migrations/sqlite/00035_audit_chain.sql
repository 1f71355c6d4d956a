-- Lines of the audit are chained by a hash, one chain for each organization.

-- +goose Up
-- seq is the number of a line in the chain of its organization, from 1; lines
-- written before this migration have 0. hash covers the line and the hash of
-- the line before. The text of address and reason can be erased: hash covers
-- their digests, each keyed by a random salt that is erased with the text.
ALTER TABLE audit ADD COLUMN seq            integer NOT NULL DEFAULT 0;
ALTER TABLE audit ADD COLUMN hash           blob    NOT NULL DEFAULT x'';
ALTER TABLE audit ADD COLUMN address_salt   blob    NOT NULL DEFAULT x'';
ALTER TABLE audit ADD COLUMN address_digest blob    NOT NULL DEFAULT x'';
ALTER TABLE audit ADD COLUMN reason_salt    blob    NOT NULL DEFAULT x'';
ALTER TABLE audit ADD COLUMN reason_digest  blob    NOT NULL DEFAULT x'';

-- The end of each chain.
CREATE TABLE audit_chains (
    organization_id text PRIMARY KEY,
    lines           integer NOT NULL DEFAULT 0,  -- seq of the last line
    hash            blob    NOT NULL DEFAULT x'', -- of the last line
    unchained       integer NOT NULL DEFAULT 0,  -- how many lines are older than the chain
    removed         integer NOT NULL DEFAULT 0,  -- lines up to this seq were deleted with the organization
    removed_hash    blob    NOT NULL DEFAULT x'' -- of the last of those
);
INSERT INTO audit_chains (organization_id, unchained) SELECT organization_id, count(*) FROM audit GROUP BY organization_id;

DROP TRIGGER audit_unchanged;
-- +goose StatementBegin
CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit
WHEN NEW.id <> OLD.id OR NEW.organization_id <> OLD.organization_id OR NEW.action <> OLD.action
    OR NEW.subject_kind <> OLD.subject_kind OR NEW.subject_id <> OLD.subject_id
    OR NEW.actor_kind <> OLD.actor_kind OR NEW.actor_id <> OLD.actor_id OR NEW.actor_role <> OLD.actor_role
    OR NEW.request_id <> OLD.request_id OR NEW.created_at <> OLD.created_at
    OR NEW.seq <> OLD.seq OR NEW.hash <> OLD.hash OR NEW.address_digest <> OLD.address_digest OR NEW.reason_digest <> OLD.reason_digest
    OR NOT (NEW.address = OLD.address AND NEW.address_salt = OLD.address_salt OR NEW.address = '' AND NEW.address_salt = x'')
    OR NOT (NEW.reason = OLD.reason AND NEW.reason_salt = OLD.reason_salt OR NEW.reason = '' AND NEW.reason_salt = x'')
BEGIN
    SELECT RAISE(ABORT, 'audit_append_only');
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER audit_appended AFTER INSERT ON audit
BEGIN
    SELECT RAISE(ABORT, 'audit_out_of_sequence')
    WHERE NOT EXISTS (SELECT 1 FROM audit_chains WHERE organization_id = NEW.organization_id AND lines = NEW.seq - 1);
    UPDATE audit_chains SET lines = NEW.seq, hash = NEW.hash WHERE organization_id = NEW.organization_id;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER audit_appended;
DROP TRIGGER audit_unchanged;
DROP TABLE audit_chains;
ALTER TABLE audit DROP COLUMN seq;
ALTER TABLE audit DROP COLUMN hash;
ALTER TABLE audit DROP COLUMN address_salt;
ALTER TABLE audit DROP COLUMN address_digest;
ALTER TABLE audit DROP COLUMN reason_salt;
ALTER TABLE audit DROP COLUMN reason_digest;
-- +goose StatementBegin
CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit
WHEN NEW.id <> OLD.id OR NEW.organization_id <> OLD.organization_id OR NEW.action <> OLD.action
    OR NEW.subject_kind <> OLD.subject_kind OR NEW.subject_id <> OLD.subject_id
    OR NEW.actor_kind <> OLD.actor_kind OR NEW.actor_id <> OLD.actor_id OR NEW.actor_role <> OLD.actor_role
    OR NEW.request_id <> OLD.request_id OR NEW.created_at <> OLD.created_at
    OR NEW.address NOT IN (OLD.address, '') OR NEW.reason NOT IN (OLD.reason, '')
BEGIN
    SELECT RAISE(ABORT, 'audit_append_only');
END;
-- +goose StatementEnd
