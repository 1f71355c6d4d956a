package access

import (
	"context"
	"time"

	"nowserving/booking/clock"
)

const (
	// keptFor is how long expired rows are kept for investigations.
	keptFor = 24 * time.Hour
	// forgetEvery is how often expired rows are deleted.
	forgetEvery = time.Hour
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
		table, keys, since string
		kept               time.Duration
	}{
		{"one_time_codes", "id", "created_at", keptFor},
		{"code_guesses", "organization_id, kind, address_hash", "failed_at", keptFor},
		{"code_budgets", "organization_id, day, country", "day", 2 * keptFor},
		{"sessions", "id", "expires_at", keptFor},
		{"revocations", "id", "at", keptFor},
	} {
		if err := a.store.DeleteInBatches(ctx, old.table, old.keys, old.since+" < ?", now.Add(-old.kept)); err != nil {
			return err
		}
	}
	return nil
}
