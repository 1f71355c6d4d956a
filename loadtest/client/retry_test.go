package client

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBackoffIsBoundedAndSpread(t *testing.T) {
	for attempt := range 2000 {
		d := Backoff(attempt, 100*time.Millisecond, 5*time.Second)
		require.GreaterOrEqual(t, d, 50*time.Millisecond)
		require.LessOrEqual(t, d, 5*time.Second)
	}
}

func TestSDKBackoff(t *testing.T) {
	wait := SDKBackoff(500*time.Millisecond, 20*time.Second)
	seen := map[time.Duration]bool{}
	for failed := range 200 {
		d := wait(failed)
		require.GreaterOrEqual(t, d, 500*time.Millisecond)
		require.LessOrEqual(t, d, 20*time.Second)
		first := wait(0)
		require.Less(t, first, time.Second)
		seen[first] = true
	}
	require.Greater(t, len(seen), 100, "they do not come back together")
	require.Zero(t, SDKBackoff(0, 0)(0))
	require.Positive(t, SDKBackoff(0, 0)(1), "a server that is down is not hammered")
}
