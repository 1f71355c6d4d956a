package webhook_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

func TestWebhooksTellThePlaceInTheQueue(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		c.Hook("queuePositionUpdated", r.URL, nil)
		kind := c.NewType(nodetest.Object{"minutes": 10})
		room := c.NewResource(nil, kind)
		c.Join(kind, nil)
		second, third := c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id")
		c.Next(room).OK()
		last := func(id string) (newest nodetest.Arrival) {
			for _, a := range r.Arrivals() {
				if nodetest.At(a.Body, "id") == id && a.Sequence() > newest.Sequence() {
					newest = a
				}
			}
			return newest
		}
		place := func(id string, want int) func() bool {
			return func() bool { return nodetest.At(last(id).Body, "data.queuePosition") == float64(want) }
		}
		require.Eventually(t, place(second, 1), nodetest.Patience, 10*time.Millisecond)
		require.Eventually(t, place(third, 2), nodetest.Patience, 10*time.Millisecond)
		assert.EqualValues(t, 20, nodetest.At(last(third).Body, "data.estimatedWaitMinutes"))
		before := last(third).Sequence()
		c.Act("cancel", second, nil).OK()
		require.Eventually(t, place(third, 1), nodetest.Patience, 10*time.Millisecond)
		assert.Greater(t, last(third).Sequence(), before)
		assert.EqualValues(t, 1, last(third).Sequence()/1_000_000, "the version has not changed")
	})
}
