package handlers_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
)

// Pages that are open follow names and minutes within a second, on the node where
// they were changed and on another.
func TestOpenPagesFollowNamesAndMinutes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 10, "name": "Checkup"})
		room := c.newResource(object{"name": "Room 1"}, kind)
		called := c.join(kind, nil).ok()
		c.next(room).ok()
		waits := c.join(kind, nil).ok()
		screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok()
		nodes := []*house{h}
		if h.server != nil {
			nodes = append(nodes, h.beside(func(*store.Store) {}))
		}
		type open struct{ display, console, mine, theirs <-chan any }
		var pages []open
		for _, node := range nodes {
			watch := func(token, channel string) <-chan any {
				_, published, err := node.watch(token, channel)
				require.NoError(t, err)
				return published
			}
			pages = append(pages, open{
				watch(screen.str("result.token"), "display:"+screen.str("result.id")), watch(c.key, "queue:"+room),
				watch(waits.str("ticketToken"), "booking:"+waits.str("id")), watch(called.str("ticketToken"), "booking:"+called.str("id")),
			})
		}
		began := time.Now()
		c.staff(http.MethodPut, "/management/resources/"+room, object{"name": "Room 7"}).ok()
		for _, p := range pages {
			name := ""
			for name != "Room 7" { // states from before may come first
				name, _ = at(nextOf(t, p.display, "DISPLAY_UPDATED"), "nowServing.0.resourceName").(string)
			}
			nextOf(t, p.console, "QUEUE_UPDATED")
			assert.Equal(t, "Room 7", at(nextOf(t, p.theirs, "BOOKING_UPDATED"), "resource.name"))
		}
		c.staff(http.MethodPut, "/management/types/"+kind, object{"minutes": 25, "name": "Long checkup"}).ok()
		for _, p := range pages {
			news := nextOf(t, p.mine, "BOOKING_UPDATED")
			assert.Equal(t, "Long checkup", at(news, "bookingType.name"))
			assert.EqualValues(t, 25, at(news, "bookingType.minutes"))
			place := nextOf(t, p.mine, "QUEUE_POSITION_UPDATED")
			assert.EqualValues(t, 1, at(place, "queuePosition"))
			assert.EqualValues(t, 25, at(place, "estimatedWaitMinutes"))
			assert.Equal(t, "Long checkup", at(nextOf(t, p.theirs, "BOOKING_UPDATED"), "bookingType.name"))
		}
		assert.Less(t, time.Since(began), 10*time.Second, "a second for each change, on a machine that is idle")
	})
}
