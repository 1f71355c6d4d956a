package clock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"nowserving/booking/clock"
)

func TestSleepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		assert.True(t, clock.Sleep(ctx, 2*time.Second))
		assert.False(t, clock.Sleep(ctx, time.Hour))
		assert.Equal(t, 3*time.Second, time.Since(began))
	})
}

func TestEveryCallsAtOnceAndSkipsWhatACallOverlaps(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var calls []time.Duration
		clock.Every(ctx, time.Second, func() {
			calls = append(calls, time.Since(began))
			if len(calls) == 2 {
				assert.True(t, clock.Sleep(ctx, 2500*time.Millisecond))
			}
			if len(calls) == 4 {
				cancel()
			}
		})
		assert.Equal(t, []time.Duration{0, time.Second, 3500 * time.Millisecond, 4 * time.Second}, calls)
	})
}
