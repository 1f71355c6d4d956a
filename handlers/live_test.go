package handlers_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node/nodetest"
)

func TestLiveShowsWhatHTTPShows(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nodetest.Object{"name": "Room 1", "name_translations": nodetest.Object{"ar": "غرفة ١"}}, kind)
		ahead, mine := c.Join(kind, nil), c.Join(kind, nil)
		id := mine.Str("id")
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()

		snapshot, booking, err := h.Watch(mine.Str("ticketToken"), "booking:"+id)
		require.NoError(t, err)
		assert.Equal(t, "SNAPSHOT", nodetest.At(snapshot, "type"))
		shown := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + id, Token: mine.Str("ticketToken")}).OK()
		assert.Equal(t, shown.At("result"), nodetest.At(snapshot, "booking"))
		assert.EqualValues(t, 2, nodetest.At(snapshot, "booking.queuePosition"))

		snapshot, queue, err := h.Watch(c.Key, "queue:"+room)
		require.NoError(t, err)
		assert.Equal(t, room, nodetest.At(snapshot, "resourceId"))
		assert.Equal(t, false, nodetest.At(snapshot, "paused"))
		assert.EqualValues(t, 2, nodetest.At(snapshot, "total"))
		assert.Equal(t, ahead.Str("id"), nodetest.At(snapshot, "waiting.0.bookingId"))
		assert.Equal(t, id, nodetest.At(snapshot, "waiting.1.bookingId"))

		snapshot, display, err := h.Watch(screen.Str("result.token"), "display:"+screen.Str("result.id"))
		require.NoError(t, err)
		assert.EqualValues(t, 2, nodetest.At(snapshot, "waiting"))
		assert.Equal(t, []any{ahead.Str("ticket"), mine.Str("ticket")}, nodetest.At(snapshot, "next"))

		c.Next(room).OK()
		assert.EqualValues(t, 1, nodetest.At(nodetest.NextOf(t, booking, "QUEUE_POSITION_UPDATED"), "queuePosition"))
		nodetest.NextOf(t, queue, "QUEUE_UPDATED")
		call := nodetest.At(nodetest.NextOf(t, display, "NOW_SERVING"), "call")
		assert.Equal(t, ahead.Str("ticket"), nodetest.At(call, "ticket"))
		assert.Equal(t, "Room 1", nodetest.At(call, "resourceName"))
		assert.Equal(t, "غرفة ١", nodetest.At(call, "resourceName_translations.ar"))
		c.Next(room).OK()
		assert.Equal(t, "Room 1", nodetest.At(nodetest.NextOf(t, booking, "MY_BOOKING_ASSIGNED"), "resourceName"))
		c.Act("start", id, nil).OK()
		c.Act("end", id, nil).OK()
		assert.Equal(t, "DONE", nodetest.At(nodetest.NextOf(t, booking, "MY_BOOKING_ENDED"), "stage"))
	})
}

func TestLiveChannelsRefuseStrangers(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, elsewhere := fill(h), h.NewClinic()
		own := c.NewResource(nodetest.Object{"providerPhone": "+966500000051"}, c.kind)
		doctor := c.SignIn("+966500000051", true).Str("accessToken")
		stranger := c.Patient("+966500000052")
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Door"}).OK()
		ticket := c.Join(c.kind, nil)
		for _, allowed := range []struct{ who, token, channel string }{
			{"the patient", c.patientToken, "booking:" + c.mine},
			{"staff", c.Key, "booking:" + c.mine},
			{"an account key", nodetest.BootstrapKey, "booking:" + c.mine},
			{"an account key", nodetest.BootstrapKey, "queue:" + own},
			{"the provider", doctor, "queue:" + own},
			{"the provider, of who waits", doctor, "booking:" + c.waiting},
			{"staff", c.Key, "display:" + c.display},
		} {
			_, _, err := h.Watch(allowed.token, allowed.channel)
			assert.NoError(t, err, "%s: %s", allowed.who, allowed.channel)
		}
		for _, refused := range []struct{ who, token, channel string }{
			{"another patient", stranger, "booking:" + c.mine},
			{"another ticket", ticket.Str("ticketToken"), "booking:" + c.mine},
			{"another organization", elsewhere.Key, "booking:" + c.mine},
			{"a display", screen.Str("result.token"), "booking:" + c.mine},
			{"a provider, of another's visit", doctor, "booking:" + c.serving},
			{"a patient", c.patientToken, "queue:" + own},
			{"a provider of another room", doctor, "queue:" + c.room},
			{"another organization", elsewhere.Key, "queue:" + own},
			{"a display", screen.Str("result.token"), "queue:" + own},
			{"another display", screen.Str("result.token"), "display:" + c.display},
			{"a patient", c.patientToken, "display:" + c.display},
			{"another organization", elsewhere.Key, "display:" + c.display},
			{"a key, of nothing", c.Key, "booking:nothing"},
			{"a key, of no text", c.Key, "booking:a\x00b"},
		} {
			_, _, err := h.Watch(refused.token, refused.channel)
			assert.Error(t, err, "%s: %s", refused.who, refused.channel)
		}
	})
}

// A display that is switched on shows all patients under way, however many were
// called since, on this node and on one that has just started.
func TestADisplayShowsAllPatientsUnderWay(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		quiet, busy := c.NewType(nil), c.NewType(nil)
		ward, counter := c.NewResource(nil, quiet), c.NewResource(nil, busy)
		screen := c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()
		_, published, err := h.Watch(screen.Str("result.token"), "display:"+screen.Str("result.id"))
		require.NoError(t, err)

		long := c.Join(quiet, nil)
		c.Next(ward).OK()
		c.Act("start", long.Str("id"), nil).OK()
		for range 110 {
			id := c.Join(busy, nil).Str("id")
			c.Next(counter).OK()
			nodetest.NextOf(t, published, "NOW_SERVING")
			c.Act("end", id, nil).OK()
		}
		nodes := []*nodetest.Node{h}
		if h.RedisServer != nil {
			nodes = append(nodes, h.Beside(func(*store.Store) {}))
		}
		for _, node := range nodes {
			snapshot, _, err := node.Watch(screen.Str("result.token"), "display:"+screen.Str("result.id"))
			require.NoError(t, err)
			shown, err := json.Marshal(nodetest.At(snapshot, "nowServing"))
			require.NoError(t, err)
			require.Contains(t, string(shown), `"ticket":"`+long.Str("ticket")+`"`)
		}
	})
}

// Resources are switched on and off, and change their types, while sixty patients
// wait. No client is sent a position that never existed.
func TestAChangeOfTheCatalogueSendsNoIntermediatePosition(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind, other := c.NewType(nil), c.NewType(nil)
		first, second := c.NewResource(nil, kind), c.NewResource(nil, kind)
		var last nodetest.Response
		for range 60 {
			last = c.Join(kind, nil)
		}
		_, published, err := h.Watch(last.Str("ticketToken"), "booking:"+last.Str("id"))
		require.NoError(t, err)
		change := func(id string, body nodetest.Object) {
			c.Staff(http.MethodPut, "/management/resources/"+id, body).OK()
		}
		for range 3 {
			change(second, nodetest.Object{"on": false})
			change(second, nodetest.Object{"on": true})
			third := c.NewResource(nil, kind, other)
			change(third, nodetest.Object{"types": []string{other}})
			change(first, nodetest.Object{"types": []string{kind, other}})
		}
		c.Next(second).OK()
		require.EqualValues(t, 59, nodetest.At(nodetest.NextOf(t, published, "QUEUE_POSITION_UPDATED"), "queuePosition"), "the first that it is told")
	})
}
