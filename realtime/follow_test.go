package realtime_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/centrifugal/centrifuge-go"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
	"nowserving/models"
	"nowserving/realtime"
)

// TestNoUpdateIsLostWhileSubscribing changes the world between the moment the
// state is read and the moment the client hears it.
func TestNoUpdateIsLostWhileSubscribing(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, n *node, protobuf bool) {
		first, second, third := w.join("r1"), w.join("r1"), w.join("r1")
		p := newPhone(t, n.url, protobuf, centrifuge.Config{Token: "patient"})
		// These hear of the changes before the other is answered.
		witness := newPhone(t, n.url, protobuf, centrifuge.Config{Token: "witness"})
		seen, moved := witness.watch("booking:"+second), witness.watch("booking:"+third)
		seen.next()
		moved.next()

		w.mu.Lock()
		w.beforeAnswer = func(id string) {
			switch id {
			case second: // taken, while its snapshot says that it waits
				w.do(models.ActionAssign, second, "r1")
				seen.untilType("MY_BOOKING_ASSIGNED")
				w.do(models.ActionRecall, second)
				seen.untilType("MY_BOOKING_CALLED")
			case third: // moves up
				w.do(models.ActionCancel, first)
				moved.until(func(n news) bool { return n.QueuePosition == 1 })
			}
		}
		w.mu.Unlock()

		l := p.watch("booking:" + second)
		assert.Equal(t, "WAITING", l.next().Booking.Stage)
		assert.Equal(t, "MY_BOOKING_ASSIGNED", l.next().Type)
		assert.Equal(t, "MY_BOOKING_CALLED", l.next().Type)

		l = p.watch("booking:" + third)
		assert.Equal(t, 1, l.next().Booking.QueuePosition, "the mirror's position, not the one read")
		w.do(models.ActionAssign, third, "r1")
		assert.Equal(t, "MY_BOOKING_ASSIGNED", l.next().Type, "and nothing older")
	})
}

// caughtUp waits until the node's mirror shows what the index holds.
func (n *node) caughtUp(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if _, ok := n.mirrors.Current(t.Context(), organization); ok {
			return
		}
		require.True(t, time.Now().Before(deadline), "the mirror does not catch up")
	}
}

// TestRepeatsAndRepairsChangeNothing applies the same changes again, as a
// repairer does.
func TestRepeatsAndRepairsChangeNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, n *node, protobuf bool) {
		first, second := w.join("r1"), w.join("r1")
		p := newPhone(t, n.url, protobuf, centrifuge.Config{Token: "patient"})
		l, other := p.watch("booking:"+second), p.watch("booking:"+first)
		l.next()
		other.next()
		w.mu.Lock()
		joined := w.entry(w.bookings[second])
		again := models.EventOf(models.EventNewPending, w.bookings[second])
		w.mu.Unlock()
		for range 3 {
			w.put(joined, &again)
			w.put(joined, nil)
		}
		event, _, ok := w.change(models.ActionAssign, first, "r1")
		require.True(t, ok)
		for range 3 {
			w.publish(event, nil)
		}
		assert.Equal(t, 1, l.next().QueuePosition)
		// A repair that does not say what happened: the source is asked.
		event, _, ok = w.change(models.ActionAssign, second, "r1")
		require.True(t, ok)
		for range 3 {
			_, err := w.index.Remove(t.Context(), organization, second, event.Version, nil)
			require.NoError(t, err)
		}
		assert.Equal(t, "MY_BOOKING_ASSIGNED", l.next().Type)
		w.publish(event, nil)
		// A change that leaves it called does not call it again.
		w.mu.Lock()
		w.bookings[second].Version++
		version := w.bookings[second].Version
		w.mu.Unlock()
		_, err := w.index.Remove(t.Context(), organization, second, version, nil)
		require.NoError(t, err)
		updated := l.next()
		assert.Equal(t, "BOOKING_UPDATED CALLED", updated.Type+" "+updated.Stage)
		w.do(models.ActionStart, second)
		w.do(models.ActionStart, first)
		assert.Equal(t, "SERVING", l.next().Stage)
		assert.Equal(t, "MY_BOOKING_ASSIGNED", other.next().Type)
		assert.Equal(t, "SERVING", other.next().Stage)
	})
}

// TestLostLinkIsMadeUpFor changes bookings while the link is down, or loses the
// index, so that no delta tells of it.
func TestLostLinkIsMadeUpFor(t *testing.T) {
	for _, loss := range []string{"kill", "flush"} {
		t.Run(loss, func(t *testing.T) {
			server := storetest.Redis(t)
			w := newWorld(t, address(server))
			n := w.node(realtime.Options{})
			taken, canceled, moving, called := w.join("r1"), w.join("r1"), w.join("r1"), w.join("r2")
			require.True(t, w.do(models.ActionAssign, called, "r2"))
			p := newPhone(t, n.url, false, centrifuge.Config{Token: "patient"})
			listeners := map[string]*listener{}
			for _, id := range []string{taken, canceled, moving, called} {
				listeners[id] = p.watch("booking:" + id)
				listeners[id].next()
			}
			w.mu.Lock()
			w.failStates = 2 // and the database is not well either
			w.mu.Unlock()

			// Changes that no delta tells of.
			for action, id := range map[models.Action]string{models.ActionAssign: taken, models.ActionCancel: canceled, models.ActionRecall: called} {
				event, _, ok := w.change(action, id, "r1")
				require.True(t, ok)
				if loss == "kill" && id != called { // the index learns of it, the node does not
					require.NoError(t, w.rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
					w.publish(event, nil)
				}
			}
			if loss == "flush" {
				server.FlushAll()
			}
			// Without the link a node looks into the database, so it may have
			// told of a place in between.
			listeners[taken].untilType("MY_BOOKING_ASSIGNED")
			listeners[canceled].untilType("MY_BOOKING_CANCELED")
			assert.Equal(t, 1, listeners[moving].until(func(n news) bool { return n.QueuePosition == 1 }).QueuePosition)
			assert.Equal(t, "MY_BOOKING_CALLED", listeners[called].next().Type)
			// A repair tells only that something changed.
			event, _, ok := w.change(models.ActionStart, taken)
			require.True(t, ok)
			_, err := w.index.Remove(t.Context(), organization, taken, event.Version, nil)
			require.NoError(t, err)
			assert.Equal(t, "SERVING", listeners[taken].next().Stage)

			// All is well again: what happens next is told as always, once.
			require.True(t, w.do(models.ActionEnd, taken))
			assert.Equal(t, "DONE", listeners[taken].next().Stage)
			require.True(t, w.do(models.ActionAssign, moving, "r1"))
			// Its place may have been told once more, when it was live again.
			listeners[moving].untilType("MY_BOOKING_ASSIGNED")
		})
	}
}

// TestUnderRandomChangesNoClientSeesWhatNeverWas changes a clinic at random from many sides, through two nodes,
// while links break and the index is lost. What each client is told of its
// place must be what was true at some time, in that order, and in the end the
// truth.
func TestUnderRandomChangesNoClientSeesWhatNeverWas(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) (string, func(*redis.Client)){
		"miniredis": func(t *testing.T) (string, func(*redis.Client)) {
			return backends["miniredis"](t), func(*redis.Client) {}
		},
		"redis": func(t *testing.T) (string, func(*redis.Client)) {
			server := storetest.Redis(t)
			return address(server), func(rdb *redis.Client) {
				if rand.N(3) == 0 {
					rdb.FlushAll(t.Context())
				}
				rdb.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr, disturb := start(t)
			hammer(t, newWorld(t, addr), disturb)
		})
	}
}

func hammer(t *testing.T, w *world, disturb func(*redis.Client)) {
	t.Helper()
	nodes := []*node{w.node(realtime.Options{}), w.node(realtime.Options{})}
	phones := []*phone{
		newPhone(t, nodes[0].url, false, centrifuge.Config{Token: "a"}),
		newPhone(t, nodes[1].url, true, centrifuge.Config{Token: "b"}),
	}
	type watched struct {
		id string
		*listener
	}
	var mu sync.Mutex
	var all []watched
	watch := func(id string) {
		l := phones[rand.N(len(phones))].watch("booking:" + id)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, watched{id, l})
	}
	resources := []string{"r1", "r2", "r3"}
	for range 60 {
		watch(w.join(resources[rand.N(3)]))
	}
	var sides sync.WaitGroup
	for range 4 {
		sides.Go(func() {
			for range 60 {
				mu.Lock()
				id, n := all[rand.N(len(all))].id, len(all)
				mu.Unlock()
				switch rand.N(8) {
				case 0, 1:
					if n < 110 {
						first, second := rand.N(3), rand.N(3)
						watch(w.join(slices.Compact(slices.Sorted(slices.Values([]string{resources[first], resources[second]})))...))
					}
				case 2:
					w.do(models.ActionHold, id)
				case 3:
					w.do(models.ActionReturn, id)
				case 4:
					w.do(models.ActionCancel, id)
				case 5:
					w.do(models.ActionRecall, id)
				case 6:
					w.do(models.ActionEnd, id)
				default:
					w.do(models.ActionAssign, id, "r1")
				}
				if rand.N(40) == 0 {
					disturb(w.rdb)
				}
			}
		})
	}
	sides.Wait()

	for _, c := range all {
		w.mu.Lock()
		b := *w.bookings[c.id]
		w.mu.Unlock()
		want := w.position(c.id)
		last := c.settle(func(state clientState) bool {
			return state.stage == string(b.Stage) && state.position == want
		})
		assert.Equal(t, clientState{string(b.Stage), want}, last, "booking %s v%d: %v", c.id, b.Version, c.types())
		c.consistent()
	}
}

// clientState is what a client makes of all it was told.
type clientState struct {
	stage    string
	position int
}

func stateOf(told []news) (s clientState) {
	for _, n := range told {
		switch n.Type {
		case "SNAPSHOT":
			s = clientState{n.Booking.Stage, n.Booking.QueuePosition}
		case "QUEUE_POSITION_UPDATED":
			s.position = n.QueuePosition
		case "MY_BOOKING_ASSIGNED", "MY_BOOKING_CALLED":
			s = clientState{stage: "CALLED"}
		case "MY_BOOKING_CANCELED", "MY_BOOKING_EXPIRED":
			s = clientState{stage: "LEFT"}
		default:
			if s.stage = n.Stage; n.Stage != "WAITING" {
				s.position = 0
			}
		}
	}
	return s
}

// settle waits until what was told amounts to a state, and returns the last.
func (l *listener) settle(reached func(clientState) bool) clientState {
	deadline := time.After(patience)
	for {
		if s := stateOf(l.told()); reached(s) {
			return s
		}
		select {
		case <-l.heard:
		case <-deadline:
			return stateOf(l.told())
		}
	}
}

// consistent checks what holds for anything a client may be told.
func (l *listener) consistent() {
	l.t.Helper()
	told := l.told()
	assigned := 0
	if before, after := told[0].Booking.Stage, stateOf(told).stage; before == "WAITING" || before == "HELD" {
		if after == "CALLED" || after == "SERVING" || after == "DONE" || after == "NO_SHOW" {
			assigned = 1
		} else if l.count("MY_BOOKING_CALLED") > 0 || l.count("MY_BOOKING_ASSIGNED") > 0 {
			assigned = 1 // and canceled after it
		}
	}
	if l.count("SNAPSHOT") == 1 { // a library that reconnected may have learnt it from the second
		assert.Equal(l.t, assigned, l.count("MY_BOOKING_ASSIGNED"), "%v", l.types())
	}
	for i := 1; i < len(told); i++ {
		if told[i].Type != "QUEUE_POSITION_UPDATED" {
			continue
		}
		before := stateOf(told[:i])
		assert.Equal(l.t, "WAITING", before.stage, "a place, though it does not wait: %v", l.types())
		// Only a place told with its age is told again, when it is live.
		if again := before.position == told[i].QueuePosition; again && !marked(told[i]) {
			assert.True(l.t, slices.ContainsFunc(told[:i], marked), "told twice: %v", l.types())
		} else {
			assert.False(l.t, again, "told twice: %v", l.types())
		}
		assert.Equal(l.t, told[i].QueuePosition*minutes, told[i].EstimatedWaitMinutes)
	}
}

// marked reports whether a place was told with its age.
func marked(n news) bool { return strings.Contains(n.raw, "queuePositionAgeSeconds") }

// TestPlacesAreTrueInOrder checks each place told against the history of the
// queue: one writer, so there is one.
func TestPlacesAreTrueInOrder(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world, n *node, protobuf bool) {
		p := newPhone(t, n.url, protobuf, centrifuge.Config{Token: "patient"})
		ids := make([]string, 30)
		listeners, history := map[string]*listener{}, map[string][]int{}
		for i := range ids {
			ids[i] = w.join("r1", fmt.Sprintf("r%d", 2+i%2))
		}
		for _, id := range ids {
			listeners[id] = p.watch("booking:" + id)
			history[id] = []int{listeners[id].next().Booking.QueuePosition}
			require.Equal(t, w.position(id), history[id][0])
		}
		held := map[string]bool{}
		for range 150 {
			id := ids[rand.N(len(ids))]
			switch {
			case held[id]:
				w.do(models.ActionReturn, id)
				held[id] = false
			case rand.N(4) == 0:
				w.do(models.ActionCancel, id)
			default:
				held[id] = w.do(models.ActionHold, id)
			}
			for _, id := range ids {
				history[id] = append(history[id], w.position(id))
			}
		}
		for _, id := range ids {
			want := w.position(id)
			l := listeners[id]
			last := l.settle(func(s clientState) bool { return s.position == want })
			assert.Equal(t, want, last.position, "%s: %v", id, l.types())
			l.consistent()
			at := 0
			for _, told := range l.told()[1:] {
				if told.Type != "QUEUE_POSITION_UPDATED" {
					continue
				}
				step := slices.Index(history[id][at:], told.QueuePosition)
				require.GreaterOrEqual(t, step, 0, "%s was told %d, which was not true (any more): %v", id, told.QueuePosition, l.types())
				at += step
			}
		}
	})
}

// TestPlacesWithoutRedisTellTheirAge: while the link is down, a place comes
// from the database and is marked with its age; when the link is back, the same
// place is told again as one that is live.
func TestPlacesWithoutRedisTellTheirAge(t *testing.T) {
	server := storetest.Redis(t)
	w := newWorld(t, address(server))
	n := w.node(realtime.Options{})
	first, second := w.join("r1"), w.join("r1")
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "patient"})
	l := p.watch("booking:" + second)
	assert.Equal(t, 2, l.next().Booking.QueuePosition)

	server.Stop()
	_, _, ok := w.change(models.ActionCancel, first)
	require.True(t, ok)
	marked := l.next()
	assert.Equal(t, 1, marked.QueuePosition)
	assert.Contains(t, marked.raw, `"queuePositionAgeSeconds":`)

	server.Start()
	live := l.next()
	assert.Equal(t, 1, live.QueuePosition)
	assert.NotContains(t, live.raw, "queuePositionAgeSeconds")
}

// TestDistantPlacesWaitForTheTick: the first twenty are told of every move at
// once; those behind hear of a burst when their tick has come.
func TestDistantPlacesWaitForTheTick(t *testing.T) {
	for tick := 300 * time.Millisecond; !distantPlaces(t, tick); tick *= 2 {
		require.Less(t, tick, patience, "those near the head waited")
	}
}

// distantPlaces returns false if the machine was too slow to tell what is told
// at once from what waits for the tick.
func distantPlaces(t *testing.T, tick time.Duration) bool {
	t.Helper()
	w := newWorld(t, miniredis.RunT(t).Addr())
	n := w.node(realtime.Options{PositionTick: tick})
	var ids []string
	for range 30 {
		ids = append(ids, w.join("r1"))
	}
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "patient"})
	near, far := p.watch("booking:"+ids[15]), p.watch("booking:"+ids[29])
	near.next()
	far.next()
	began := time.Now()
	for i := range 4 {
		require.True(t, w.do(models.ActionCancel, ids[i]))
		assert.Equal(t, 15-i, near.next().QueuePosition)
	}
	if time.Since(began) > tick/2 {
		return false
	}
	var told []int
	for len(told) == 0 || told[len(told)-1] != 26 {
		told = append(told, far.next().QueuePosition)
	}
	late := time.Since(began)
	assert.Less(t, len(told), 4, "told of every move: %v", told)
	assert.GreaterOrEqual(t, late, tick, "the last was told before its time")
	return true
}
