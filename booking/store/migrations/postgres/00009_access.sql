-- Who did what, and which credentials are no longer good.

-- +goose Up
-- A credential that ended before its time. Every node reads what is new every
-- second: it then refuses the credential and closes its live connections.
CREATE TABLE revocations (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text NOT NULL CHECK (kind IN ('session', 'key', 'display', 'organization')),
    subject text NOT NULL,
    at      timestamptz NOT NULL
);
CREATE INDEX revocations_at ON revocations (at);

-- Who did what to which thing, when, from where and why; written in the
-- transaction that did it. It refers loosely: what it tells of may be gone.
-- The organization of what concerns the account alone is empty.
CREATE TABLE audit (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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
    created_at      timestamptz NOT NULL
);
CREATE INDEX audit_organization ON audit (organization_id, id);
CREATE INDEX audit_subject ON audit (organization_id, subject_id, id);
CREATE INDEX audit_actor ON audit (organization_id, actor_id, id);

-- Append-only. The one change there may be is that a person's address and words
-- are erased; rows leave only after their organization has.
-- +goose StatementBegin
CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.organization_id = '' OR EXISTS (SELECT 1 FROM organizations WHERE id = OLD.organization_id) THEN
            RAISE EXCEPTION 'audit_append_only';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'TRUNCATE' OR NEW.address NOT IN (OLD.address, '') OR NEW.reason NOT IN (OLD.reason, '')
        OR (NEW.id, NEW.organization_id, NEW.action, NEW.subject_kind, NEW.subject_id, NEW.actor_kind, NEW.actor_id, NEW.actor_role, NEW.request_id, NEW.created_at)
        IS DISTINCT FROM
           (OLD.id, OLD.organization_id, OLD.action, OLD.subject_kind, OLD.subject_id, OLD.actor_kind, OLD.actor_id, OLD.actor_role, OLD.request_id, OLD.created_at) THEN
        RAISE EXCEPTION 'audit_append_only';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_kept BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_append_only();
CREATE TRIGGER audit_not_truncated BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();

-- +goose Down
DROP TABLE audit;
DROP FUNCTION audit_append_only;
DROP TABLE revocations;
