package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node/nodetest"
)

// phone is a patient's app: the published Go SDK, watching one booking.
type phone struct {
	mu        sync.Mutex
	position  int
	wait      int // minutes
	events    []string
	snapshots int
}

// watch connects a phone to a node and subscribes it to the booking of a ticket.
func watch(h *nodetest.Node, ticket nodetest.Response) *phone {
	h.T.Helper()
	p := &phone{}
	client := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", centrifuge.Config{
		Token: ticket.Str("ticketToken"), MinReconnectDelay: 10 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond,
	})
	sub, err := client.NewSubscription("booking:" + ticket.Str("id"))
	require.NoError(h.T, err)
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		var snapshot struct{ Booking struct{ QueuePosition int } }
		if err := json.Unmarshal(e.Data, &snapshot); err != nil {
			h.T.Error(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.position = snapshot.Booking.QueuePosition
		p.snapshots++
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		var data struct {
			Type                 string
			QueuePosition        int
			EstimatedWaitMinutes int
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			h.T.Error(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if data.Type == "QUEUE_POSITION_UPDATED" {
			p.position, p.wait = data.QueuePosition, data.EstimatedWaitMinutes
		} else {
			p.events = append(p.events, data.Type)
		}
	})
	require.NoError(h.T, client.Connect())
	require.NoError(h.T, sub.Subscribe())
	h.T.Cleanup(client.Close)
	return p
}

// shows returns the newest position.
func (p *phone) shows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position
}

// resubscribed reports whether the phone has subscribed more than once.
func (p *phone) resubscribed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.snapshots > 1
}

// received returns the types of the events so far.
func (p *phone) received() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.events...)
}

// A node is killed while patients join. After its start every acknowledged booking exists
// once, and the phones reconnect by themselves.
func TestAKilledNodeLosesNoAcknowledgedBooking(t *testing.T) {
	t.Parallel()
	nodetest.OnEach(t, func(t *testing.T, b nodetest.Backend) {
		node := startProcess(t, environ(t, b))
		c, typeID, resourceID := node.NewQueue()
		var phones []*phone
		for range 20 {
			phones = append(phones, watch(node.Node, c.Join(typeID, nil)))
		}
		require.Eventually(t, func() bool { return phones[19].shows() == 20 }, nodetest.Patience, 10*time.Millisecond)

		var mu sync.Mutex
		answered := map[string]string{}
		stop := make(chan struct{})
		first := make(chan struct{}, 1)
		var joining sync.WaitGroup
		for range 4 {
			joining.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					a, err := c.TryJoin(typeID)
					if err != nil || a.Status != http.StatusOK {
						continue // not acknowledged
					}
					mu.Lock()
					answered[a.Str("id")] = a.Str("ticket")
					enough := len(answered) == 25
					mu.Unlock()
					if enough {
						first <- struct{}{}
					}
				}
			})
		}
		<-first
		node.kill()
		node.start()
		close(stop)
		joining.Wait()

		waiting := listQueue(c, resourceID)
		tickets := map[string]bool{}
		for _, b := range waiting {
			require.False(t, tickets[b.Ticket], "two bookings have the ticket %s", b.Ticket)
			tickets[b.Ticket] = true
		}
		for id, ticket := range answered {
			require.True(t, tickets[ticket], "booking %s was acknowledged and is lost", id)
		}

		// The phones reconnect by themselves, and move when the next patient is called.
		for _, p := range phones {
			require.Eventually(t, p.resubscribed, nodetest.Patience, 10*time.Millisecond)
		}
		c.Next(resourceID).OK()
		require.Eventually(t, func() bool {
			for i, p := range phones[1:] {
				if p.shows() != i+1 {
					return false
				}
			}
			return true
		}, nodetest.Patience, 20*time.Millisecond)
		require.Eventually(t, func() bool { return len(phones[0].received()) == 1 }, nodetest.Patience, 10*time.Millisecond)
		require.Equal(t, []string{"MY_BOOKING_ASSIGNED"}, phones[0].received())
	})
}

type listed struct {
	ID, Ticket    string
	QueuePosition int
}

func listQueue(c *nodetest.Clinic, resourceID string) []listed {
	c.T.Helper()
	a := c.Staff(http.MethodGet, "/management/queue?limit=500&resourceId="+resourceID, nil).OK()
	var page struct{ Result []listed }
	require.NoError(c.T, json.Unmarshal(a.Raw, &page))
	return page.Result
}

// Two nodes share a PostgreSQL and a Redis. A phone on one moves when a doctor calls the
// next patient on the other, and reconnects after its node was killed.
func TestPhonesOnTwoNodesShowTheSamePositions(t *testing.T) {
	t.Parallel()
	environ := environ(t, nodetest.Postgres)
	a, b := startProcess(t, environ), startProcess(t, environ)
	c, typeID, resourceID := a.NewQueue()
	var tickets []nodetest.Response
	var phones []*phone
	for i := range 6 {
		ticket := c.Join(typeID, nil)
		tickets = append(tickets, ticket)
		phones = append(phones, watch([]*process{a, b}[i%2].Node, ticket))
	}
	all := func(from, offset int) func() bool {
		return func() bool {
			for i := from; i < len(phones); i++ {
				if phones[i].shows() != i+1-offset {
					return false
				}
			}
			return true
		}
	}
	require.Eventually(t, all(0, 0), nodetest.Patience, 10*time.Millisecond)
	c.Through(b.Node).Act("assign", tickets[0].Str("id"), nodetest.Object{"resourceId": resourceID}).OK()
	require.Eventually(t, all(1, 1), nodetest.Patience, 5*time.Millisecond)
	require.Equal(t, 1, listQueue(c, resourceID)[0].QueuePosition)

	b.kill()
	c.Next(resourceID).OK()
	b.start()
	require.Eventually(t, all(2, 2), nodetest.Patience, 20*time.Millisecond)
}

// While Redis is away, phones on every node get right positions. After its return, no
// phone gets the call of its patient a second time.
func TestPhonesGetRightPositionsWithoutRedis(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	environ := serverEnviron(storetest.Postgres(t), server.URL)
	a, b := startProcess(t, environ), startProcess(t, environ)
	c, typeID, resourceID := a.NewQueue()
	first, second, third := c.Join(typeID, nil), c.Join(typeID, nil), c.Join(typeID, nil)
	one, two, three := watch(a.Node, first), watch(a.Node, second), watch(b.Node, third)
	require.Eventually(t, func() bool { return three.shows() == 3 && two.shows() == 2 && one.shows() == 1 }, nodetest.Patience, 10*time.Millisecond)

	server.Stop()
	c.Through(b.Node).Act("assign", first.Str("id"), nodetest.Object{"resourceId": resourceID}).OK()
	require.Eventually(t, func() bool { return two.shows() == 1 && three.shows() == 2 && len(one.received()) == 1 }, nodetest.Patience, 20*time.Millisecond)
	late := watch(b.Node, c.Join(typeID, nil))
	require.Eventually(t, func() bool { return late.shows() == 3 }, nodetest.Patience, 20*time.Millisecond)

	server.Start()
	c.Act("assign", second.Str("id"), nodetest.Object{"resourceId": resourceID}).OK()
	require.Eventually(t, func() bool { return three.shows() == 1 && late.shows() == 2 && len(two.received()) == 1 }, nodetest.Patience, 20*time.Millisecond)
	require.Equal(t, []string{"MY_BOOKING_ASSIGNED"}, one.received())
	require.Equal(t, []string{"MY_BOOKING_ASSIGNED"}, two.received())
}

// estimatedWaitMinutes is the position times the type's minutes, also when those change
// while a patient waits.
func TestEstimatedWaitsFollowAChangeOfTheType(t *testing.T) {
	t.Parallel()
	c, typeID, resourceID := nodetest.Start(t, nodetest.Embedded).NewQueue()
	first, second, third := c.Join(typeID, nil), c.Join(typeID, nil), c.Join(typeID, nil)
	p := watch(c.Node, third)
	require.Eventually(t, func() bool { return p.shows() == 3 }, nodetest.Patience, 10*time.Millisecond)
	require.Equal(t, 30, third.Num("estimatedWaitMinutes"))
	c.Staff(http.MethodPut, "/management/types/"+typeID, nodetest.Object{"minutes": 25}).OK()
	c.Act("assign", first.Str("id"), nodetest.Object{"resourceId": resourceID}).OK()
	require.Eventually(t, func() bool { return p.shows() == 2 }, nodetest.Patience, 5*time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Equal(t, 50, p.wait)
	require.Equal(t, 25, c.Staff(http.MethodGet, "/management/bookings/"+second.Str("id"), nil).OK().Num("result.estimatedWaitMinutes"))
}

func TestADataFolderInUseIsRefused(t *testing.T) {
	t.Parallel()
	err := serve(t.Context(), nodetest.Start(t, nodetest.Embedded).Config)
	require.ErrorContains(t, err, "in use by another process")
	require.NotErrorIs(t, err, http.ErrServerClosed)
}
