-- The audit never ends: what it is narrowed by has an index.

-- +goose Up
CREATE INDEX audit_action ON audit (organization_id, action, id);
CREATE INDEX audit_created ON audit (organization_id, created_at);

-- +goose Down
DROP INDEX audit_created;
DROP INDEX audit_action;
