package store

import "context"

// Unmigrate takes every version of the schema back, the newest first.
func (s *Store) Unmigrate(ctx context.Context) error {
	p, err := s.provider()
	if err != nil {
		return err
	}
	_, err = p.DownTo(ctx, 0)
	return err
}

// AuditSum is the hash of a line after one with the hash before.
func AuditSum(line *Audit, before []byte) []byte { return line.sum(before) }
