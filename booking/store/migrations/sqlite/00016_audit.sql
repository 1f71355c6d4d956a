-- A line of the audit can't be written over either.

-- +goose Up
-- REPLACE deletes what is in its way without asking the triggers of DELETE.
-- +goose StatementBegin
CREATE TRIGGER audit_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'audit_append_only');
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER audit_replaced;
