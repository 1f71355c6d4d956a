package store_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
)

// A machine whose clock is wrong: nothing that is stored shows it.
func TestTimesAreTheDatabasesWhateverTheMachineShows(t *testing.T) {
	t.Parallel()
	options := storetest.Migrated(t, true)
	for _, offset := range []time.Duration{5 * time.Minute, -5 * time.Minute, 30 * time.Minute, -30 * time.Minute} {
		options.Now = func() time.Time { return time.Now().Add(offset) }
		s, err := store.Open(t.Context(), options)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })

		before, err := s.Now(t.Context())
		require.NoError(t, err)
		now := s.Time()
		after, err := s.Now(t.Context())
		require.NoError(t, err)
		require.False(t, now.Before(before), "%s is before %s", now, before)
		require.WithinDuration(t, after, now, time.Second)
		require.InDelta(t, offset.Seconds(), s.ClockOffset().Seconds(), 1)
		wrong, err := s.ClockError()
		require.Equal(t, offset.Abs() > store.MaxClockOffset, wrong)
		if offset == 0 {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "this machine's clock is "+offset.Abs().String()+" "+map[bool]string{true: "ahead of", false: "behind"}[offset > 0])
		}

		require.NoError(t, s.Tx(t.Context(), func(tx *store.Tx) error {
			tx.Enqueue(store.Announce{EventID: 1})
			return nil
		}))
		var job struct {
			State                  string
			Now                    time.Time
			ScheduledAt, CreatedAt time.Time
		}
		require.NoError(t, s.Read(t.Context()).Raw("SELECT state, scheduled_at, created_at, clock_timestamp() AS now FROM river_job ORDER BY id DESC LIMIT 1").Scan(&job).Error)
		require.Equal(t, "available", job.State)
		require.False(t, job.ScheduledAt.After(job.Now), "the job waits for %s", job.ScheduledAt.Sub(job.Now))
		require.WithinDuration(t, job.Now, job.ScheduledAt, time.Second)
		require.WithinDuration(t, job.Now, job.CreatedAt, time.Second)
		require.WithinDuration(t, job.Now, s.Read(t.Context()).NowFunc(), time.Second, "GORM fills times in")
	}
}
