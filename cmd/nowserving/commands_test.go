package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// A change costs one command, besides that of the request's limit, and one delta. The
// length of the queue and the number of nodes do not matter.
func TestAChangeIsOneCommandAndOneDelta(t *testing.T) {
	t.Parallel()
	const changes = 60
	for _, size := range []struct{ waiting, nodes int }{{10, 1}, {200, 3}} {
		h := nodetest.Start(t, nodetest.Postgres, inProduction)
		server := h.RedisServer
		c, typeID, resourceID := h.NewQueue()
		var last nodetest.Response
		for range size.waiting {
			last = c.Join(typeID, nil)
		}
		phones := []*phone{watch(h, last)}
		for range size.nodes - 1 {
			phones = append(phones, watch(h.Beside(nil), last))
		}
		for _, p := range phones {
			require.Eventually(t, func() bool { return p.shows() == size.waiting }, nodetest.Patience, 10*time.Millisecond)
		}

		began, before := time.Now(), server.Calls()
		for range changes / 2 {
			require.NoError(t, joinAndCall(c, typeID, resourceID))
		}
		if left := size.waiting - changes/2; left > 0 {
			for _, p := range phones {
				require.Eventually(t, func() bool { return p.shows() == left }, nodetest.Patience, 10*time.Millisecond)
			}
		}
		after, lasted := server.Calls(), time.Since(began)
		cost := map[string]int{}
		for name, calls := range after {
			cost[name] = calls - before[name]
		}
		// In the background, each node reads the index and the revocations, and
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
