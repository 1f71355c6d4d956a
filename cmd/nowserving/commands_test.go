package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
)

// A change costs one command, beside that of the request's limit, and one delta, however long the queue is and
// however many nodes listen.
func TestAChangeIsOneCommandAndOneDelta(t *testing.T) {
	t.Parallel()
	const changes = 60
	for _, size := range []struct{ waiting, nodes int }{{10, 1}, {200, 3}} {
		server := storetest.Redis(t)
		environ := []string{"DATABASE_URL=" + storetest.Postgres(t), "REDIS_URL=" + server.URL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef"}
		c := start(t, environ)
		typeID, resourceID := c.clinic()
		var last object
		for range size.waiting {
			last = c.join(typeID)
		}
		phones := []*phone{c.watch(last)}
		for range size.nodes - 1 {
			phones = append(phones, start(t, environ).watch(last))
		}
		for _, p := range phones {
			require.Eventually(t, func() bool { return p.shows() == size.waiting }, patience, 10*time.Millisecond)
		}

		began, before := time.Now(), server.Calls()
		for range changes / 2 {
			c.join(typeID)
			c.call("POST", "/management/queue/next", map[string]any{"resourceId": resourceID})
		}
		if left := size.waiting - changes/2; left > 0 {
			for _, p := range phones {
				require.Eventually(t, func() bool { return p.shows() == left }, patience, 10*time.Millisecond)
			}
		}
		after, lasted := server.Calls(), time.Since(began)
		cost := map[string]int{}
		for name, calls := range after {
			cost[name] = calls - before[name]
		}
		// In the background, each node looks at the index and at the revocations, and
		// announces that it has read these, at most once a second; and one of them
		// compares the whole index now and then, which takes three more commands.
		background := size.nodes*int(2+lasted/time.Second) + 3
		require.GreaterOrEqual(t, cost["publish"], changes, "one delta for each change: %v", cost)
		require.LessOrEqual(t, cost["publish"], changes+background, "one delta for each change: %v", cost)
		for _, name := range []string{"evalsha", "hmget"} {
			expected := map[string]int{"evalsha": 2 * changes}[name] // the other counts the request against its limit
			require.InDelta(t, expected, cost[name], float64(background), "%s for %d changes, %d waiting, %d nodes: %v", name, changes, size.waiting, size.nodes, cost)
		}
		for _, name := range []string{"eval", "subscribe", "zrange"} {
			require.LessOrEqual(t, cost[name], background, "%s: %v", name, cost)
		}
	}
}
