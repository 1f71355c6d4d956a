package client

import (
	"cmp"
	"context"
	"math"
	mathrand "math/rand/v2"
	"time"
)

// Backoff doubles from base to limit and picks a random wait below it, so that
// clients cut off together do not come back together.
func Backoff(attempt int, base, limit time.Duration) time.Duration {
	top := min(float64(base)*math.Pow(2, float64(attempt)), float64(limit))
	return time.Duration(top/2 + mathrand.Float64()*top/2) //nolint:gosec // nothing secret, only spread
}

// Pause waits, or ends early with the context.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// SDKBackoff waits as the published SDKs do: at least the minimum, and a random
// part that doubles with each failure. With no maximum everybody comes back at
// once, and only a failed attempt makes one wait.
func SDKBackoff(shortest, longest time.Duration) func(failed int) time.Duration {
	if longest == 0 {
		return func(failed int) time.Duration {
			if failed == 0 {
				return 0
			}
			return Backoff(failed, reconnectBase, reconnectLimit)
		}
	}
	return func(failed int) time.Duration {
		spread := min(longest, cmp.Or(shortest, time.Millisecond)<<min(failed, 20))
		return min(longest, shortest+time.Duration(mathrand.Int64N(int64(spread)))) //nolint:gosec // nothing secret, only spread
	}
}
