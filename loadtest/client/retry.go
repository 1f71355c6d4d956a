package client

import (
	"cmp"
	"context"
	"math"
	mathrand "math/rand/v2"
	"time"
)

// Backoff returns a random wait below a limit that doubles from base with each attempt, so
// that clients that were disconnected together do not reconnect together.
func Backoff(attempt int, base, limit time.Duration) time.Duration {
	top := min(float64(base)*math.Pow(2, float64(attempt)), float64(limit))
	return time.Duration(top/2 + mathrand.Float64()*top/2) //nolint:gosec // nothing secret, only spread
}

// Pause waits for d. It returns earlier if the context is canceled.
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

// SDKBackoff returns the backoff of the published SDKs: at least shortest plus a random part
// that doubles with each failed attempt, at most longest. If longest is zero, clients
// reconnect at once and wait only after a failed attempt.
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
