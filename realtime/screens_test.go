package realtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
	"nowserving/models"
	"nowserving/realtime"
)

func TestConsolesFollowTheirQueue(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, n *node, protobuf bool) {
		first := w.join("r1", "r2")
		p := newPhone(t, n.url, protobuf, centrifuge.Config{Token: "doctor"})
		one, two := p.watch("queue:r1"), p.watch("queue:r2")
		assert.Equal(t, 1, one.next().Total)
		two.next()

		second := w.join("r1")
		joined := one.untilType("NEW_PENDING_UNASSIGNED_BOOKING")
		assert.Equal(t, second+" r1 scheduling-system", joined.BookingID+" "+joined.ResourceID+" "+joined.Via)
		updated := one.untilType("QUEUE_UPDATED")
		assert.Equal(t, `2 r1 WAITING A002`, string(updated.Waiting)+" "+updated.ResourceID+" "+updated.Stage+" "+updated.Ticket)

		for _, step := range []struct {
			action  models.Action
			stage   string
			waiting string
		}{
			{models.ActionHold, "HELD", "1"}, {models.ActionReturn, "WAITING", "2"}, {models.ActionAssign, "CALLED", "1"},
			{models.ActionRecall, "CALLED", "1"}, {models.ActionStart, "SERVING", "1"}, {models.ActionEnd, "DONE", "1"},
		} {
			require.True(t, w.do(step.action, first, "r1"))
			told := one.until(func(n news) bool { return n.Type == "QUEUE_UPDATED" && n.BookingID == first && n.Stage == step.stage })
			assert.Equal(t, step.waiting, string(told.Waiting), step.action)
		}
		assert.Equal(t, "0", string(two.until(func(n news) bool { return n.Stage == "CALLED" }).Waiting), "taken by the other")

		require.True(t, w.do(models.ActionHold, second))
		one.until(func(n news) bool { return n.BookingID == second && n.Stage == "HELD" })
		require.True(t, w.do(models.ActionCancel, second))
		one.until(func(n news) bool { return n.BookingID == second && n.Stage == "LEFT" })

		require.NoError(t, w.index.Announce(t.Context(), organization, "r2", time.Now()))
		assert.Empty(t, two.until(func(n news) bool { return n.Stage == "" && n.Type == "QUEUE_UPDATED" }).BookingID)
		assert.Equal(t, 2, one.count("NEW_PENDING_UNASSIGNED_BOOKING"), "who ends a visit is told who waits")
		assert.Zero(t, two.count("NEW_PENDING_UNASSIGNED_BOOKING"), "the other room ended nothing")
	})
}

func TestDisplaysShowCallsAndNextTickets(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, n *node, protobuf bool) {
		w.screens["hall"], w.screens["door"] = nil, []string{"r2"}
		early, first, second, both := w.join("r1"), w.join("r1"), w.join("r2"), w.join("r1", "r2")
		require.True(t, w.do(models.ActionAssign, early, "r1"))
		p := newPhone(t, n.url, protobuf, centrifuge.Config{Token: "screen"})
		hall, door := p.watch("display:hall"), p.watch("display:door")

		snapshot := hall.next()
		assert.Equal(t, "SNAPSHOT", snapshot.Type)
		require.Len(t, snapshot.NowServing, 1)
		shown := snapshot.NowServing[0]
		assert.WithinDuration(t, time.Now(), shown.CalledAt, time.Minute)
		shown.CalledAt = time.Time{}
		assert.Equal(t, shownCall{
			Ticket: "A001", ResourceID: "r1", ResourceName: "Room 1",
			Translations: map[string]string{"en": "Room 1", "ar": "غرفة ١"}, Stage: "CALLED",
		}, shown)
		assert.Len(t, snapshot.LastCalled, 1)
		assert.Equal(t, []string{"A002", "A003", "A004"}, snapshot.Next)
		assert.Equal(t, "3", string(snapshot.Waiting))
		snapshot = door.next()
		assert.Empty(t, snapshot.NowServing)
		assert.Equal(t, []string{"A003", "A004"}, snapshot.Next)

		// Nobody recalls before the call is heard; a minute lies between them.
		for _, one := range []struct{ id, resource string }{{first, "r1"}, {second, "r2"}, {both, "r1"}} {
			require.True(t, w.do(models.ActionAssign, one.id, one.resource))
			for recalls := range 3 {
				call := hall.untilType("NOW_SERVING").Call
				assert.Equal(t, fmt.Sprint("A00"+one.id[1:], recalls), fmt.Sprint(call.Ticket, call.RecallCount), "every call and recall, in order")
				if recalls < 2 {
					require.True(t, w.do(models.ActionRecall, one.id))
				}
			}
		}
		last := hall.until(func(n news) bool {
			return n.Type == "DISPLAY_UPDATED" && string(n.Waiting) == "0" && len(n.NowServing) == 4
		})
		assert.Empty(t, last.Next)
		assert.Equal(t, "A004", last.LastCalled[0].Ticket)

		require.True(t, w.do(models.ActionEnd, early))
		gone := hall.until(func(n news) bool { return n.Type == "DISPLAY_UPDATED" && len(n.NowServing) == 3 })
		assert.Len(t, gone.LastCalled, 4)
		door.until(func(n news) bool {
			return n.Type == "DISPLAY_UPDATED" && len(n.NowServing) == 1 && string(n.Waiting) == "0"
		})
		assert.Equal(t, 3, door.count("NOW_SERVING"), "the other room's calls are none of its business")
	})
}

func TestDisplayAfterAGap(t *testing.T) {
	server := storetest.Redis(t)
	w := newWorld(t, address(server))
	w.screens["hall"] = nil
	n := w.node(realtime.Options{})
	served, called, waiting, vanishing := w.join("r1"), w.join("r1"), w.join("r1"), w.join("r1")
	require.True(t, w.do(models.ActionAssign, served, "r1"))
	require.True(t, w.do(models.ActionAssign, vanishing, "r1"))
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "screen"})
	hall := p.watch("display:hall")
	hall.next()
	_, _, ok := w.change(models.ActionEnd, served)
	require.True(t, ok)
	_, _, ok = w.change(models.ActionAssign, called, "r1")
	require.True(t, ok)
	w.mu.Lock()
	delete(w.bookings, vanishing) // or so long ago that the source does not list it
	w.mu.Unlock()
	server.FlushAll()
	assert.Equal(t, "A002", hall.untilType("NOW_SERVING").Call.Ticket)
	hall.until(func(n news) bool {
		return n.Type == "DISPLAY_UPDATED" && len(n.NowServing) == 1 && n.NowServing[0].Ticket == "A002" && string(n.Waiting) == "1"
	})
	require.True(t, w.do(models.ActionAssign, waiting, "r1"))
	assert.Equal(t, "A003", hall.untilType("NOW_SERVING").Call.Ticket)
}

// lazy connects a client that reads only when asked to, over a connection that
// holds little.
func lazy(t *testing.T, n *node, channels ...string) *wire {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if tcp, ok := c.(*net.TCPConn); ok {
			err = tcp.SetReadBuffer(1)
		}
		return c, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	c := dial(t, n.url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	c.connect("lazy")
	for i, channel := range channels {
		c.send(fmt.Sprintf(`{"id":%d,"subscribe":{"channel":%q}}`, i+2, channel))
		require.Contains(t, c.receive(), "SNAPSHOT")
	}
	return c
}

func TestSlowClientIsSentAwayAndHoldsUpNobody(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{WriteTimeout: patience})
	slowly, quickly := w.join("r1"), w.join("r1")
	c := lazy(t, n, "booking:"+slowly)
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "quick"})
	l := p.watch("booking:" + quickly)
	l.next()
	for n.hub.Stats().Dropped == 0 {
		for range 50 {
			w.do(models.ActionHold, slowly)
			w.do(models.ActionReturn, slowly)
		}
		w.do(models.ActionHold, quickly)
		l.until(func(n news) bool { return n.Stage == "HELD" })
		w.do(models.ActionReturn, quickly)
	}
	code, reason := c.closed()
	assert.Equal(t, "3008 slow", fmt.Sprint(code, " ", reason))
}

func TestClientThatTakesNothingIsHungUpOn(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{WriteTimeout: 200 * time.Millisecond})
	id := w.join("r1")
	lazy(t, n, "booking:"+id)
	for n.hub.Stats().Connections > 0 {
		w.do(models.ActionHold, id)
		w.do(models.ActionReturn, id)
	}
	assert.Zero(t, n.hub.Stats().Subscriptions)
}

func TestSlowDisplayLosesCallsButNotTheState(t *testing.T) {
	w := small(t)
	w.screens["hall"] = nil
	n := w.node(realtime.Options{WriteTimeout: patience})
	id := w.join("r1")
	c := lazy(t, n, "display:hall")
	require.True(t, w.do(models.ActionAssign, id, "r1"))
	recalls := 0
	for ; n.hub.Stats().Dropped == 0; recalls++ {
		require.True(t, w.do(models.ActionRecall, id))
	}
	var last string
	for want := fmt.Sprintf(`"recallCount":%d}],"lastCalled"`, recalls); !strings.Contains(last, want); {
		last = c.receive()
	}
}

// TestNewerPositionReplacesUnsentOne lets positions pile up behind a client
// that reads slowly: it is told of the newest only, of none twice, and in the
// end of the last.
func TestNewerPositionReplacesUnsentOne(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{WriteTimeout: patience, PingInterval: time.Hour})
	first, second, last := w.join("r1"), w.join("r1"), w.join("r1")
	c := lazy(t, n, "booking:"+last)
	moves := 0
	move := func() {
		w.do(models.ActionHold, first)
		n.caughtUp(t)
		w.do(models.ActionReturn, first)
		n.caughtUp(t)
		moves += 2
	}
	for n.hub.Stats().Conflated < 50 {
		move()
	}
	var moving sync.WaitGroup
	moving.Go(func() {
		for range 100 {
			move()
		}
		w.do(models.ActionCancel, first)
		w.do(models.ActionCancel, second)
	})
	var told []string
	for len(told) == 0 || told[len(told)-1] != "1" {
		for line := range strings.Lines(c.receive()) {
			var push struct {
				Push struct{ Pub struct{ Data news } }
			}
			require.NoError(t, json.Unmarshal([]byte(line), &push))
			told = append(told, strconv.Itoa(push.Push.Pub.Data.QueuePosition))
		}
	}
	moving.Wait()
	assert.Len(t, slices.Compact(slices.Clone(told)), len(told), "told twice: %v", told)
	assert.LessOrEqual(t, len(told), moves-50+2, "told of what was replaced")
	assert.Zero(t, n.hub.Stats().Dropped)
}
