-- A node that is asked whether it is ready writes here, for a database that
-- answers may be one that can't be written to. It has one row. The filler is
-- there only within a transaction: it makes the database find a page for it.

-- +goose Up
CREATE TABLE readiness (checks integer NOT NULL, filler blob);
INSERT INTO readiness VALUES (0, NULL);

-- +goose Down
DROP TABLE readiness;
