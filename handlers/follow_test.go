package handlers_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node/nodetest"
)

// Open pages show a new name or length within a second, on the node of the change
// and on another.
func TestOpenPagesShowChangedNamesAndMinutes(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 10, "name": "Checkup"})
		room := c.NewResource(nodetest.Object{"name": "Room 1"}, kind)
		called := c.Join(kind, nil).OK()
		c.Next(room).OK()
		waits := c.Join(kind, nil).OK()
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()
		nodes := []*nodetest.Node{h}
		if h.RedisServer != nil {
			nodes = append(nodes, h.Beside(func(*store.Store) {}))
		}
		type open struct{ display, console, mine, theirs <-chan any }
		var pages []open
		for _, node := range nodes {
			watch := func(token, channel string) <-chan any {
				_, published, err := node.Watch(token, channel)
				require.NoError(t, err)
				return published
			}
			pages = append(pages, open{
				watch(screen.Str("result.token"), "display:"+screen.Str("result.id")), watch(c.Key, "queue:"+room),
				watch(waits.Str("ticketToken"), "booking:"+waits.Str("id")), watch(called.Str("ticketToken"), "booking:"+called.Str("id")),
			})
		}
		began := time.Now()
		c.Staff(http.MethodPut, "/management/resources/"+room, nodetest.Object{"name": "Room 7"}).OK()
		for _, p := range pages {
			name := ""
			for name != "Room 7" { // states from before may come first
				name, _ = nodetest.At(nodetest.NextOf(t, p.display, "DISPLAY_UPDATED"), "nowServing.0.resourceName").(string)
			}
			nodetest.NextOf(t, p.console, "QUEUE_UPDATED")
			assert.Equal(t, "Room 7", nodetest.At(nodetest.NextOf(t, p.theirs, "BOOKING_UPDATED"), "resource.name"))
		}
		c.Staff(http.MethodPut, "/management/types/"+kind, nodetest.Object{"minutes": 25, "name": "Long checkup"}).OK()
		for _, p := range pages {
			news := nodetest.NextOf(t, p.mine, "BOOKING_UPDATED")
			assert.Equal(t, "Long checkup", nodetest.At(news, "bookingType.name"))
			assert.EqualValues(t, 25, nodetest.At(news, "bookingType.minutes"))
			place := nodetest.NextOf(t, p.mine, "QUEUE_POSITION_UPDATED")
			assert.EqualValues(t, 1, nodetest.At(place, "queuePosition"))
			assert.EqualValues(t, 25, nodetest.At(place, "estimatedWaitMinutes"))
			assert.Equal(t, "Long checkup", nodetest.At(nodetest.NextOf(t, p.theirs, "BOOKING_UPDATED"), "bookingType.name"))
		}
		assert.Less(t, time.Since(began), 10*time.Second, "a second for each change, on a machine that is idle")
	})
}
