package handlers_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
)

// watch subscribes to a channel and returns the snapshot, or the error.
func (h *house) watch(token, channel string) (snapshot any, published <-chan any, err error) {
	h.t.Helper()
	client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", centrifuge.Config{Token: token})
	h.t.Cleanup(client.Close)
	require.NoError(h.t, client.Connect())
	sub, err := client.NewSubscription(channel)
	require.NoError(h.t, err)
	got, refused, events := make(chan any, 1), make(chan error, 1), make(chan any, 64)
	parse := func(data []byte) any {
		var v any
		assert.NoError(h.t, json.Unmarshal(data, &v))
		return v
	}
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) { got <- parse(e.Data) })
	sub.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { refused <- errors.New(e.Reason) })
	sub.OnPublication(func(e centrifuge.PublicationEvent) { events <- parse(e.Data) })
	require.NoError(h.t, sub.Subscribe())
	select {
	case snapshot := <-got:
		return snapshot, events, nil
	case err := <-refused:
		return nil, nil, err
	case <-time.After(patience):
		h.t.Fatal("no answer to a subscription")
		return nil, nil, nil
	}
}

// nextOf waits for a publication of a type.
func nextOf(t *testing.T, published <-chan any, kind string) any {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case p := <-published:
			if at(p, "type") == kind {
				return p
			}
		case <-deadline:
			t.Fatalf("%s was not published", kind)
		}
	}
}

func TestLiveShowsWhatHTTPShows(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(object{"name": "Room 1", "name_translations": object{"ar": "غرفة ١"}}, kind)
		ahead, mine := c.join(kind, nil), c.join(kind, nil)
		id := mine.str("id")
		screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok()

		snapshot, booking, err := h.watch(mine.str("ticketToken"), "booking:"+id)
		require.NoError(t, err)
		assert.Equal(t, "SNAPSHOT", at(snapshot, "type"))
		shown := h.send(request{method: http.MethodGet, path: "/customer/bookings/" + id, token: mine.str("ticketToken")}).ok()
		assert.Equal(t, shown.at("result"), at(snapshot, "booking"))
		assert.EqualValues(t, 2, at(snapshot, "booking.queuePosition"))

		snapshot, queue, err := h.watch(c.key, "queue:"+room)
		require.NoError(t, err)
		assert.Equal(t, room, at(snapshot, "resourceId"))
		assert.Equal(t, false, at(snapshot, "paused"))
		assert.EqualValues(t, 2, at(snapshot, "total"))
		assert.Equal(t, ahead.str("id"), at(snapshot, "waiting.0.bookingId"))
		assert.Equal(t, id, at(snapshot, "waiting.1.bookingId"))

		snapshot, display, err := h.watch(screen.str("result.token"), "display:"+screen.str("result.id"))
		require.NoError(t, err)
		assert.EqualValues(t, 2, at(snapshot, "waiting"))
		assert.Equal(t, []any{ahead.str("ticket"), mine.str("ticket")}, at(snapshot, "next"))

		c.next(room).ok()
		assert.EqualValues(t, 1, at(nextOf(t, booking, "QUEUE_POSITION_UPDATED"), "queuePosition"))
		nextOf(t, queue, "QUEUE_UPDATED")
		call := at(nextOf(t, display, "NOW_SERVING"), "call")
		assert.Equal(t, ahead.str("ticket"), at(call, "ticket"))
		assert.Equal(t, "Room 1", at(call, "resourceName"))
		assert.Equal(t, "غرفة ١", at(call, "resourceName_translations.ar"))
		c.next(room).ok()
		assert.Equal(t, "Room 1", at(nextOf(t, booking, "MY_BOOKING_ASSIGNED"), "resourceName"))
		c.act("start", id, nil).ok()
		c.act("end", id, nil).ok()
		assert.Equal(t, "DONE", at(nextOf(t, booking, "MY_BOOKING_ENDED"), "stage"))
	})
}

func TestLiveIsGuarded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, elsewhere := h.fill(), h.newClinic()
		own := c.newResource(object{"providerPhone": "+966500000051"}, c.kind)
		doctor := c.signIn("+966500000051", true).str("accessToken")
		stranger := c.patient("+966500000052")
		screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Door"}).ok()
		ticket := c.join(c.kind, nil)
		for _, allowed := range []struct{ who, token, channel string }{
			{"the patient", c.patientToken, "booking:" + c.mine},
			{"staff", c.key, "booking:" + c.mine},
			{"an account key", bootstrapKey, "booking:" + c.mine},
			{"an account key", bootstrapKey, "queue:" + own},
			{"the provider", doctor, "queue:" + own},
			{"the provider, of who waits", doctor, "booking:" + c.waiting},
			{"staff", c.key, "display:" + c.display},
		} {
			_, _, err := h.watch(allowed.token, allowed.channel)
			assert.NoError(t, err, "%s: %s", allowed.who, allowed.channel)
		}
		for _, refused := range []struct{ who, token, channel string }{
			{"another patient", stranger, "booking:" + c.mine},
			{"another ticket", ticket.str("ticketToken"), "booking:" + c.mine},
			{"another organization", elsewhere.key, "booking:" + c.mine},
			{"a display", screen.str("result.token"), "booking:" + c.mine},
			{"a provider, of another's visit", doctor, "booking:" + c.serving},
			{"a patient", c.patientToken, "queue:" + own},
			{"a provider of another room", doctor, "queue:" + c.room},
			{"another organization", elsewhere.key, "queue:" + own},
			{"a display", screen.str("result.token"), "queue:" + own},
			{"another display", screen.str("result.token"), "display:" + c.display},
			{"a patient", c.patientToken, "display:" + c.display},
			{"another organization", elsewhere.key, "display:" + c.display},
			{"a key, of nothing", c.key, "booking:nothing"},
			{"a key, of no text", c.key, "booking:a\x00b"},
		} {
			_, _, err := h.watch(refused.token, refused.channel)
			assert.Error(t, err, "%s: %s", refused.who, refused.channel)
		}
	})
}

// A screen that is switched on shows everybody under way, however many others
// were called since, on this node and on one that has just started.
func TestAScreenShowsEverybodyUnderWay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		quiet, busy := c.newType(nil), c.newType(nil)
		ward, counter := c.newResource(nil, quiet), c.newResource(nil, busy)
		screen := c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok()
		_, published, err := h.watch(screen.str("result.token"), "display:"+screen.str("result.id"))
		require.NoError(t, err)

		long := c.join(quiet, nil)
		c.next(ward).ok()
		c.act("start", long.str("id"), nil).ok()
		for range 110 {
			id := c.join(busy, nil).str("id")
			c.next(counter).ok()
			nextOf(t, published, "NOW_SERVING")
			c.act("end", id, nil).ok()
		}
		nodes := []*house{h}
		if h.server != nil {
			nodes = append(nodes, h.beside(func(*store.Store) {}))
		}
		for _, node := range nodes {
			snapshot, _, err := node.watch(screen.str("result.token"), "display:"+screen.str("result.id"))
			require.NoError(t, err)
			shown, err := json.Marshal(at(snapshot, "nowServing"))
			require.NoError(t, err)
			require.Contains(t, string(shown), `"ticket":"`+long.str("ticket")+`"`)
		}
	})
}

// Rooms go on and off, come and change what they offer while sixty wait for them.
// No client is told a place that never was.
func TestAChangeOfTheCatalogueIsOneChange(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind, other := c.newType(nil), c.newType(nil)
		first, second := c.newResource(nil, kind), c.newResource(nil, kind)
		var last answer
		for range 60 {
			last = c.join(kind, nil)
		}
		_, published, err := h.watch(last.str("ticketToken"), "booking:"+last.str("id"))
		require.NoError(t, err)
		change := func(id string, body object) {
			c.staff(http.MethodPut, "/management/resources/"+id, body).ok()
		}
		for range 3 {
			change(second, object{"on": false})
			change(second, object{"on": true})
			third := c.newResource(nil, kind, other)
			change(third, object{"types": []string{other}})
			change(first, object{"types": []string{kind, other}})
		}
		c.next(second).ok()
		require.EqualValues(t, 59, at(nextOf(t, published, "QUEUE_POSITION_UPDATED"), "queuePosition"), "the first that it is told")
	})
}
