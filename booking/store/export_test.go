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
