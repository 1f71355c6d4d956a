-- A node that is asked whether it is ready writes here, for a database that
-- answers may be one that can't be written to. It has one row.

-- +goose Up
CREATE TABLE readiness (checks bigint NOT NULL);
INSERT INTO readiness VALUES (0);

-- +goose Down
DROP TABLE readiness;
