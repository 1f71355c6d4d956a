-- Who did what, and which credentials are no longer good.

-- +goose Up
-- A credential that ended before its time. Every node reads what is new every
-- second: it then refuses the credential and closes its live connections.
CREATE TABLE revocations (
    id      integer PRIMARY KEY AUTOINCREMENT,
    kind    text NOT NULL CHECK (kind IN ('session', 'key', 'display', 'organization')),
    subject text NOT NULL,
    at      datetime NOT NULL
);
CREATE INDEX revocations_at ON revocations (at);

-- Who did what to which thing, when, from where and why; written in the
-- transaction that did it. It refers loosely: what it tells of may be gone.
-- The organization of what concerns the account alone is empty.
CREATE TABLE audit (
    id              integer PRIMARY KEY AUTOINCREMENT,
    organization_id text NOT NULL,
    action          text NOT NULL CHECK (action <> ''),
    subject_kind    text NOT NULL,
    subject_id      text NOT NULL,
    actor_kind      text NOT NULL,
    actor_id        text NOT NULL,
    actor_role      text NOT NULL,
    address         text NOT NULL,
    request_id      text NOT NULL,
    reason          text NOT NULL,
    created_at      datetime NOT NULL
);
CREATE INDEX audit_organization ON audit (organization_id, id);
CREATE INDEX audit_subject ON audit (organization_id, subject_id, id);
CREATE INDEX audit_actor ON audit (organization_id, actor_id, id);

-- Append-only. The one change there may be is that a person's address and words
-- are erased; rows leave only after their organization has.
-- +goose StatementBegin
CREATE TRIGGER audit_kept BEFORE DELETE ON audit
WHEN OLD.organization_id = '' OR EXISTS (SELECT 1 FROM organizations WHERE id = OLD.organization_id)
BEGIN
    SELECT RAISE(ABORT, 'audit_append_only');
END;
-- +goose StatementEnd
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

-- +goose Down
DROP TABLE audit;
DROP TABLE revocations;
