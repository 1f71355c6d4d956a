package handlers_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWebhooksTellThePlaceInTheQueue(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		c.hook("queuePositionUpdated", r.url, nil)
		kind := c.newType(object{"minutes": 10})
		room := c.newResource(nil, kind)
		c.join(kind, nil)
		second, third := c.join(kind, nil).str("id"), c.join(kind, nil).str("id")
		c.next(room).ok()
		last := func(id string) (newest arrival) {
			for _, a := range r.arrivals() {
				if at(a.body, "id") == id && a.sequence() > newest.sequence() {
					newest = a
				}
			}
			return newest
		}
		place := func(id string, want int) func() bool {
			return func() bool { return at(last(id).body, "data.queuePosition") == float64(want) }
		}
		require.Eventually(t, place(second, 1), patience, 10*time.Millisecond)
		require.Eventually(t, place(third, 2), patience, 10*time.Millisecond)
		assert.EqualValues(t, 20, at(last(third).body, "data.estimatedWaitMinutes"))
		before := last(third).sequence()
		c.act("cancel", second, nil).ok()
		require.Eventually(t, place(third, 1), patience, 10*time.Millisecond)
		assert.Greater(t, last(third).sequence(), before)
		assert.EqualValues(t, 1, last(third).sequence()/1_000_000, "the version has not changed")
	})
}
