package access

import (
	"context"
	"fmt"
	"time"

	"nowserving/booking/clock"
	"nowserving/booking/store"
)

const (
	// keptFor is how long expired rows are kept for investigations.
	keptFor = 24 * time.Hour
	// forgetEvery is how often expired rows are deleted, and forgetAtOnce how many in
	// one transaction.
	forgetEvery  = time.Hour
	forgetAtOnce = 1000
)

// Forget calls Tidy every hour until ctx ends.
func (a *Access) Forget(ctx context.Context) {
	clock.Every(ctx, forgetEvery, func() {
		if err := a.Tidy(ctx); err != nil && ctx.Err() == nil {
			a.opts.Log.Error("delete old sessions and codes", "error", err)
		}
	})
}

// Tidy deletes one-time codes, wrong guesses, sessions and revocations that expired
// more than a day ago.
func (a *Access) Tidy(ctx context.Context) error {
	now, err := a.store.Now(ctx)
	if err != nil {
		return err
	}
	for _, old := range []struct {
		table, key, since string
		kept              time.Duration
	}{
		{"one_time_codes", "id", "created_at", keptFor},
		{"code_guesses", "organization_id, kind, address_hash", "failed_at", keptFor},
		{"code_budgets", "organization_id, day, country", "day", 2 * keptFor},
		{"sessions", "id", "expires_at", keptFor},
		{"revocations", "id", "at", keptFor},
	} {
		statement := fmt.Sprintf("DELETE FROM %[1]s WHERE (%[2]s) IN (SELECT %[2]s FROM %[1]s WHERE %[3]s < ? LIMIT ?)", old.table, old.key, old.since)
		for deleted := int64(forgetAtOnce); deleted == forgetAtOnce; {
			err := a.store.Tx(ctx, func(tx *store.Tx) error {
				done := tx.Exec(statement, now.Add(-old.kept), forgetAtOnce)
				deleted = done.RowsAffected
				return done.Error
			})
			if err != nil {
				return fmt.Errorf("tidy %s: %w", old.table, err)
			}
		}
	}
	return nil
}
