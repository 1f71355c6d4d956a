package store

import (
	"context"
	"fmt"
)

// batchSize bounds the rows that one transaction of DeleteInBatches deletes.
const batchSize = 1000

// DeleteInBatches deletes the rows of a table that a condition selects, in
// transactions of at most 1,000 rows, so that none holds its locks for long. keys are
// the columns of the primary key, separated by commas.
func (s *Store) DeleteInBatches(ctx context.Context, table, keys, condition string, args ...any) error {
	statement := fmt.Sprintf("DELETE FROM %[1]s WHERE (%[2]s) IN (SELECT %[2]s FROM %[1]s WHERE %[3]s LIMIT %[4]d)", table, keys, condition, batchSize)
	for deleted := int64(batchSize); deleted == batchSize; {
		err := s.Tx(ctx, func(tx *Tx) error {
			done := tx.Exec(statement, args...)
			deleted = done.RowsAffected
			return done.Error
		})
		if err != nil {
			return fmt.Errorf("delete old rows of %s: %w", table, err)
		}
	}
	return nil
}
