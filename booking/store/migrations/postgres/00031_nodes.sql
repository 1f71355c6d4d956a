-- Which nodes live. Unlogged: a node says it several times a second, and a table
-- that a crash has emptied is filled again at once.
-- +goose Up
CREATE UNLOGGED TABLE nodes (
    id      text        PRIMARY KEY,
    seen_at timestamptz NOT NULL
);

-- +goose Down
DROP TABLE nodes;
