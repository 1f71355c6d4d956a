package booking_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/booking"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

// BenchmarkComparison is what it costs to see that the index is right, with
// 10,000 waiting: the two numbers that are compared every two seconds, and
// everything, which is compared every fifteen.
func BenchmarkComparison(b *testing.B) {
	ctx := b.Context()
	s, err := store.Open(ctx, store.Options{URL: storetest.Postgres(b), Now: time.Now, Log: slog.Default()})
	require.NoError(b, err)
	defer s.Close() //nolint:errcheck // the benchmark is over
	_, err = s.Migrate(ctx)
	require.NoError(b, err)
	rdb, closeRedis, err := store.OpenRedis(storetest.Redis(b).URL)
	require.NoError(b, err)
	defer closeRedis() //nolint:errcheck // the benchmark is over
	require.NoError(b, s.Tx(ctx, func(tx *store.Tx) error {
		for _, sql := range []string{
			"INSERT INTO organizations (id, name, timezone, created_at) VALUES ('o', 'o', 'UTC', now())",
			//nolint:dupword // values, not words
			`INSERT INTO booking_types (id, organization_id, name, prefix, minutes, is_on, auto_confirm, book_from_website, created_at, updated_at)
				VALUES ('t', 'o', 't', 'A', 10, true, true, true, now(), now())`,
			"INSERT INTO customers (id, organization_id, created_at, updated_at) VALUES ('c', 'o', now(), now())",
			//nolint:dupword // values, not words
			`INSERT INTO bookings (id, organization_id, customer_id, type_id, status, stage, ticket, local_day, priority, version,
				assignment_timeout, assignment_deadline, created_at, updated_at, pending_at)
				SELECT 'booking-' || n, 'o', 'c', 't', 'PENDING_ASSIGNMENT', 'WAITING', 'A' || n, '2026-01-01', 0, 1, 60, now() + interval '1 day', now(), now(), now()
				FROM generate_series(1, 10000) AS n`,
		} {
			if err := tx.Exec(sql).Error; err != nil {
				return err
			}
		}
		return nil
	}))
	truth := booking.NewSource(s)
	index := queue.NewIndex(rdb, truth, slog.New(slog.DiscardHandler))
	_, err = index.Put(ctx, "o", queue.Entry{BookingID: models.NewID(), Version: 1, TypeID: "t"}, nil)
	require.NoError(b, err)
	b.Run("sum", func(b *testing.B) {
		for b.Loop() {
			sum, err := truth.Sum(ctx, "o")
			require.NoError(b, err)
			require.EqualValues(b, 10_000, sum.Waiting)
		}
	})
	b.Run("whole", func(b *testing.B) {
		_, err := index.Repair(ctx, "o", 0) // takes out the stranger
		require.NoError(b, err)
		for b.Loop() {
			wrong, err := index.Repair(ctx, "o", 0)
			require.NoError(b, err)
			require.Zero(b, wrong)
		}
	})
}
