-- An erasure of a customer includes the duplicates that were merged into them.

-- +goose Up
ALTER TABLE customers ADD COLUMN merged_into text;
CREATE INDEX customers_merged ON customers (merged_into) WHERE merged_into IS NOT NULL;

-- +goose Down
DROP INDEX customers_merged;
ALTER TABLE customers DROP COLUMN merged_into;
