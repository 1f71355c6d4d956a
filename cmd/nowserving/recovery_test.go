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
	"nowserving/cmd/nowserving/node"
)

// phone is a patient's app: the published Go SDK, watching one booking.
type phone struct {
	mu       sync.Mutex
	position int
	wait     int // minutes
	events   []string
	arrivals int // times it has subscribed
	client   *centrifuge.Client
}

// watch connects a phone and subscribes it to the booking of a ticket.
func (c *client) watch(ticket object) *phone {
	c.t.Helper()
	p := &phone{}
	p.client = centrifuge.NewJsonClient("ws"+strings.TrimPrefix(c.url, "http")+"/connection/websocket", centrifuge.Config{
		Token: ticket.text("ticketToken"), MinReconnectDelay: 10 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond,
	})
	sub, err := p.client.NewSubscription("booking:" + ticket.text("id"))
	require.NoError(c.t, err)
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		var snapshot struct{ Booking struct{ QueuePosition int } }
		if err := json.Unmarshal(e.Data, &snapshot); err != nil {
			c.t.Error(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.position = snapshot.Booking.QueuePosition
		p.arrivals++
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		var data struct {
			Type                 string
			QueuePosition        int
			EstimatedWaitMinutes int
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			c.t.Error(err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if data.Type == "QUEUE_POSITION_UPDATED" {
			p.position, p.wait = data.QueuePosition, data.EstimatedWaitMinutes
		} else {
			p.events = append(p.events, data.Type)
		}
	})
	require.NoError(c.t, p.client.Connect())
	require.NoError(c.t, sub.Subscribe())
	c.t.Cleanup(p.client.Close)
	return p
}

func (p *phone) shows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position
}

func (p *phone) back() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.arrivals > 1
}

func (p *phone) heard() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.events...)
}

// A node is killed while patients join. Whatever it had answered is there when
// it comes back, nothing is there twice, and the phones find back by themselves.
func TestKillAndRestartLosesNothing(t *testing.T) {
	t.Parallel()
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			t.Parallel()
			node := startProcess(t, be.settings(t))
			typeID, resourceID := node.clinic()
			var phones []*phone
			for range 20 {
				phones = append(phones, node.watch(node.join(typeID)))
			}
			require.Eventually(t, func() bool { return phones[19].shows() == 20 }, patience, 10*time.Millisecond)

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
						status, body, err := node.try("PUT", "/management/scheduling/new", map[string]any{"type": typeID, "assign": false})
						if err != nil || status != http.StatusOK {
							continue // it was never promised
						}
						var b struct{ ID, Ticket string }
						if err := json.Unmarshal(body, &b); err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						answered[b.ID] = b.Ticket
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

			waiting := listQueue(t, node.client, resourceID)
			tickets := map[string]bool{}
			for _, b := range waiting {
				require.False(t, tickets[b.Ticket], "ticket %s is there twice", b.Ticket)
				tickets[b.Ticket] = true
			}
			for id, ticket := range answered {
				require.True(t, tickets[ticket], "booking %s was promised and is lost", id)
			}

			// The phones come back by themselves, and move when the doctor takes the next.
			for _, p := range phones {
				require.Eventually(t, p.back, patience, 10*time.Millisecond)
			}
			node.call("POST", "/management/queue/next", map[string]any{"resourceId": resourceID})
			require.Eventually(t, func() bool {
				for i, p := range phones[1:] {
					if p.shows() != i+1 {
						return false
					}
				}
				return true
			}, patience, 20*time.Millisecond)
			require.Eventually(t, func() bool { return len(phones[0].heard()) == 1 }, patience, 10*time.Millisecond)
			require.Equal(t, []string{"MY_BOOKING_ASSIGNED"}, phones[0].heard())
		})
	}
}

type listed struct {
	ID, Ticket    string
	QueuePosition int
}

func listQueue(t *testing.T, c *client, resourceID string) []listed {
	t.Helper()
	status, body, err := c.try("GET", "/management/queue?limit=500&resourceId="+resourceID, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status, string(body))
	var page struct{ Result []listed }
	require.NoError(t, json.Unmarshal(body, &page))
	return page.Result
}

// Two nodes share a PostgreSQL and a Redis: a phone on one moves when a doctor
// on the other takes the next, and finds its way when its node dies.
func TestTwoNodesShowTheSame(t *testing.T) {
	t.Parallel()
	environ := backends[1].settings(t)
	a, b := startProcess(t, environ), startProcess(t, environ)
	typeID, resourceID := a.clinic()
	b.appID = a.appID
	var tickets []object
	var phones []*phone
	for i := range 6 {
		ticket := a.join(typeID)
		tickets = append(tickets, ticket)
		phones = append(phones, []*process{a, b}[i%2].watch(ticket))
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
	require.Eventually(t, all(0, 0), patience, 10*time.Millisecond)
	b.call("POST", "/management/bookings/assign", map[string]any{"bookingId": tickets[0]["id"], "resourceId": resourceID})
	require.Eventually(t, all(1, 1), patience, 5*time.Millisecond)
	require.Equal(t, 1, listQueue(t, a.client, resourceID)[0].QueuePosition)

	b.kill()
	a.call("POST", "/management/queue/next", map[string]any{"resourceId": resourceID})
	b.start()
	require.Eventually(t, all(2, 2), patience, 20*time.Millisecond)
}

// While Redis is away, phones go on being told the truth, on every node, and
// nobody hears twice that they were called when it is back.
func TestPhonesMoveWithoutRedis(t *testing.T) {
	t.Parallel()
	server := storetest.Redis(t)
	environ := []string{"DATABASE_URL=" + storetest.Postgres(t), "REDIS_URL=" + server.URL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef"}
	a, b := startProcess(t, environ), startProcess(t, environ)
	typeID, resourceID := a.clinic()
	b.appID = a.appID
	first, second, third := a.join(typeID), a.join(typeID), a.join(typeID)
	one, two, three := a.watch(first), a.watch(second), b.watch(third)
	require.Eventually(t, func() bool { return three.shows() == 3 && two.shows() == 2 && one.shows() == 1 }, patience, 10*time.Millisecond)

	server.Stop()
	b.call("POST", "/management/bookings/assign", map[string]any{"bookingId": first["id"], "resourceId": resourceID})
	require.Eventually(t, func() bool { return two.shows() == 1 && three.shows() == 2 && len(one.heard()) == 1 }, patience, 20*time.Millisecond)
	late := b.watch(a.join(typeID))
	require.Eventually(t, func() bool { return late.shows() == 3 }, patience, 20*time.Millisecond)

	server.Start()
	a.call("POST", "/management/bookings/assign", map[string]any{"bookingId": second["id"], "resourceId": resourceID})
	require.Eventually(t, func() bool { return three.shows() == 1 && late.shows() == 2 && len(two.heard()) == 1 }, patience, 20*time.Millisecond)
	require.Equal(t, []string{"MY_BOOKING_ASSIGNED"}, one.heard())
	require.Equal(t, []string{"MY_BOOKING_ASSIGNED"}, two.heard())
}

// estimatedWaitMinutes is the place times the type's minutes, also when those
// change while somebody waits.
func TestWaitsFollowTheType(t *testing.T) {
	t.Parallel()
	c := start(t, backends[0].settings(t))
	typeID, resourceID := c.clinic()
	first := c.join(typeID)
	second := c.join(typeID)
	third := c.join(typeID)
	p := c.watch(third)
	require.Eventually(t, func() bool { return p.shows() == 3 }, patience, 10*time.Millisecond)
	require.InDelta(t, 30, third["estimatedWaitMinutes"], 0)
	c.call("PUT", "/management/types/"+typeID, map[string]any{"minutes": 25})
	c.call("POST", "/management/bookings/assign", map[string]any{"bookingId": first["id"], "resourceId": resourceID})
	require.Eventually(t, func() bool { return p.shows() == 2 }, patience, 5*time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	require.Equal(t, 50, p.wait)
	require.InDelta(t, 25, c.call("GET", "/management/bookings/"+second.text("id"), nil)["estimatedWaitMinutes"], 0)
}

func TestTheDataFolderBelongsToOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, []string{"NOWSERVING_DATA=" + dir})
	c, err := node.ReadConfig(settings([]string{"NOWSERVING_DATA=" + dir}))
	require.NoError(t, err)
	err = serve(t.Context(), c)
	require.ErrorContains(t, err, "in use by another process")
	require.NotErrorIs(t, err, http.ErrServerClosed)
}
