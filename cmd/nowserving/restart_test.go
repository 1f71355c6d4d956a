package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
)

// end asks the process to stop, waits until it has, and returns how long that
// took.
func (p *process) end() time.Duration {
	p.t.Helper()
	began := time.Now()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(p.t, p.cmd.Wait(), "%s", p.printed())
	return time.Since(began)
}

// balancer takes TCP connections and hands them to the nodes in turn, passing
// over those that refuse.
type balancer struct {
	net.Listener
	t     *testing.T
	mu    sync.Mutex
	nodes []string
	turn  int
}

func newBalancer(t *testing.T, nodes ...string) *balancer {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b := &balancer{Listener: l, t: t, nodes: nodes}
	var open sync.WaitGroup
	open.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			open.Go(func() { b.carry(client) })
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, l.Close())
		open.Wait()
	})
	return b
}

func (b *balancer) set(nodes ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes = nodes
}

func (b *balancer) carry(client net.Conn) {
	defer client.Close() //nolint:errcheck // it is over
	b.mu.Lock()
	b.turn++
	turn, nodes := b.turn, b.nodes
	b.mu.Unlock()
	for i := range nodes {
		node, err := net.Dial("tcp", nodes[(turn+i)%len(nodes)]) //nolint:noctx // it refuses at once
		if err != nil {
			continue
		}
		var back sync.WaitGroup
		back.Go(func() {
			defer client.Close() //nolint:errcheck // the caller closes it too
			_, _ = io.Copy(client, node)
		})
		_, _ = io.Copy(node, client)
		assert.NoError(b.t, node.Close())
		back.Wait()
		return
	}
}

// caller makes requests over connections it keeps, to one node until that
// refuses or asks for the next to go elsewhere.
type caller struct {
	nodes []*client
	at    int
	moved int
}

func newCaller(t *testing.T, at int, nodes ...*process) *caller {
	c := &caller{at: at % len(nodes)}
	for _, n := range nodes {
		own := newClient(t, n.url)
		own.appID = n.appID
		c.nodes = append(c.nodes, own)
	}
	return c
}

// call makes a request that must succeed, on one node or the other.
func (c *caller) call(method, path string, body any, into any) error {
	for range 2 * len(c.nodes) {
		status, closing, answer, err := c.nodes[c.at].ask(method, path, body)
		if errors.Is(err, syscall.ECONNREFUSED) {
			c.at = (c.at + 1) % len(c.nodes)
			continue
		}
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, answer)
		}
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		if closing {
			c.at = (c.at + 1) % len(c.nodes)
			c.moved++
		}
		return json.Unmarshal(answer, into)
	}
	return errors.New("no node takes connections")
}

// passenger is a phone that checks all it is told.
type passenger struct {
	t    *testing.T
	rank int // when nobody was served yet
	// sent and answered count who was served.
	sent, answered *atomic.Int64

	mu        sync.Mutex
	position  int
	least     int64 // served for certain when the last subscribing began
	told      int
	watched   int // subscribed so many times
	dismissed []time.Time
}

func (p *passenger) tell(position int) {
	// True after what it was told last, and not before anything happened.
	if position > p.position && p.position != 0 || int64(position) < int64(p.rank)-p.sent.Load() {
		p.t.Errorf("number %d was told %d after %d, when %d had been served", p.rank, position, p.position, p.sent.Load())
	}
	p.position = position
	p.told++
}

func (p *passenger) watch(url string, ticket object) {
	client := centrifuge.NewJsonClient(url, centrifuge.Config{
		Token: ticket.text("ticketToken"), MinReconnectDelay: 10 * time.Millisecond, MaxReconnectDelay: 200 * time.Millisecond,
	})
	client.OnConnecting(func(e centrifuge.ConnectingEvent) {
		if e.Code == 3001 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.dismissed = append(p.dismissed, time.Now())
		}
	})
	sub, err := client.NewSubscription("booking:" + ticket.text("id"))
	require.NoError(p.t, err)
	sub.OnSubscribing(func(centrifuge.SubscribingEvent) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.least = p.answered.Load()
	})
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		var snapshot struct{ Booking struct{ QueuePosition int } }
		assert.NoError(p.t, json.Unmarshal(e.Data, &snapshot))
		p.mu.Lock()
		defer p.mu.Unlock()
		if position := snapshot.Booking.QueuePosition; int64(position) > int64(p.rank)-p.least {
			p.t.Errorf("number %d was shown %d, when %d had been served for certain", p.rank, position, p.least)
		}
		p.watched++
		p.tell(snapshot.Booking.QueuePosition)
	})
	sub.OnPublication(func(e centrifuge.PublicationEvent) {
		var data struct {
			Type          string
			QueuePosition int
		}
		assert.NoError(p.t, json.Unmarshal(e.Data, &data))
		p.mu.Lock()
		defer p.mu.Unlock()
		if assert.Equal(p.t, "QUEUE_POSITION_UPDATED", data.Type) {
			p.tell(data.QueuePosition)
		}
	})
	require.NoError(p.t, client.Connect())
	require.NoError(p.t, sub.Subscribe())
	p.t.Cleanup(client.Close)
}

func (p *passenger) shows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position
}

// Both nodes are restarted, one after the other, while patients join, look and
// are served: no request fails, and no phone is told anything wrong.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	environ := backends[1].settings(t)
	a, b := startProcess(t, environ), startProcess(t, environ)
	typeID, resourceID := a.clinic()
	b.appID = a.appID
	joining := map[string]any{"type": typeID, "assign": false, "assignmentTimeout": 180}

	const ahead, watching = 100, 100
	for range ahead {
		a.join(typeID)
	}
	front := newBalancer(t, strings.TrimPrefix(a.url, "http://"))
	var sent, answered atomic.Int64
	var phones []*passenger
	for i := range watching {
		p := &passenger{t: t, rank: ahead + i + 1, sent: &sent, answered: &answered}
		p.watch("ws://"+front.Addr().String()+"/connection/websocket", a.join(typeID))
		phones = append(phones, p)
	}
	all := func(position func(p *passenger) int) func() bool {
		return func() bool {
			for _, p := range phones {
				if p.shows() != position(p) {
					return false
				}
			}
			return true
		}
	}
	require.Eventually(t, all(func(p *passenger) int { return p.rank }), patience, 10*time.Millisecond)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	var moved, requests atomic.Int64
	var mu sync.Mutex
	var joined []string
	work := func(every time.Duration, do func(c *caller) error) {
		c := newCaller(t, rand.N(2), a, b)
		busy.Go(func() {
			ticker := time.NewTicker(every)
			defer ticker.Stop()
			for {
				select {
				case <-stop:
					moved.Add(int64(c.moved))
					return
				case <-ticker.C:
				}
				requests.Add(1)
				if err := do(c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 4 {
		work(20*time.Millisecond, func(c *caller) error {
			var made struct{ ID string }
			if err := c.call("PUT", "/management/scheduling/new", joining, &made); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			joined = append(joined, made.ID)
			return nil
		})
		work(10*time.Millisecond, func(c *caller) error {
			mu.Lock()
			if len(joined) == 0 {
				mu.Unlock()
				return nil
			}
			id := joined[rand.N(len(joined))]
			mu.Unlock()
			var read struct{ Result struct{ ID string } }
			err := c.call("GET", "/management/bookings/"+id, nil, &read)
			if err == nil && read.Result.ID != id {
				err = fmt.Errorf("%s was read instead of %s", read.Result.ID, id)
			}
			return err
		})
	}
	work(100*time.Millisecond, func(c *caller) error {
		if sent.Load() == ahead {
			return nil
		}
		sent.Add(1)
		err := c.call("POST", "/management/queue/next", map[string]any{"resourceId": resourceID}, &struct{}{})
		answered.Add(1)
		return err
	})

	for restart, leaving := range []*process{a, b} {
		// Whoever comes back comes to the other: all are there when it is its turn.
		other := []*process{b, a}[restart]
		front.set(strings.TrimPrefix(other.url, "http://"))
		require.Eventually(t, func() bool { return answered.Load() >= int64(10*(restart+1)) }, patience, time.Millisecond)
		refused := make(chan int, 1)
		go func() {
			for {
				status, body, err := newClient(t, leaving.url).try("GET", "/readyz", nil)
				if err != nil || status != http.StatusOK {
					assert.Contains(t, string(body), "stopping")
					refused <- status
					return
				}
			}
		}()
		took := leaving.end()
		require.Equal(t, http.StatusServiceUnavailable, <-refused, "not ready any more while it still answers")
		require.Less(t, took, node.DrainTimeout)
		require.Eventually(t, func() bool {
			for _, p := range phones {
				p.mu.Lock()
				back := len(p.dismissed) == restart+1 && p.watched >= restart+2
				p.mu.Unlock()
				if !back {
					return false
				}
			}
			return true
		}, patience, 10*time.Millisecond)
		leaving.start()
	}
	served := answered.Load()
	require.Eventually(t, func() bool { return answered.Load() > served+5 }, patience, time.Millisecond)
	close(stop)
	busy.Wait()

	require.Eventually(t, all(func(p *passenger) int { return p.rank - int(answered.Load()) }), patience, 10*time.Millisecond)
	waiting := listQueue(t, b.client, resourceID)
	for _, p := range phones {
		require.Equal(t, p.shows(), waiting[p.shows()-1].QueuePosition)
	}
	for restart := range 2 {
		first, last := phones[0].dismissed[restart], phones[0].dismissed[restart]
		for _, p := range phones {
			if at := p.dismissed[restart]; at.Before(first) {
				first = at
			} else if at.After(last) {
				last = at
			}
		}
		require.Greater(t, last.Sub(first), 20*time.Millisecond, "asked all at once")
	}
	c := newCaller(t, 0, a, b)
	for _, id := range joined {
		require.NoError(t, c.call("GET", "/management/bookings/"+id, nil, &struct{}{}))
	}
	require.Positive(t, moved.Load(), "nobody was asked to go elsewhere")
	t.Logf("%d requests, %d joins, %d asked to go elsewhere", requests.Load(), len(joined), moved.Load())
}

// With nobody there a node stops at once, and with a client that does not let
// go it stops at once when it is told again.
func TestANodeWithoutClientsStopsAtOnce(t *testing.T) {
	t.Parallel()
	for _, be := range backends {
		t.Run(be.name, func(t *testing.T) {
			t.Parallel()
			p := startProcess(t, be.settings(t))
			p.http.CloseIdleConnections()
			require.Less(t, p.end(), 5*time.Second)

			p.start()
			typeID, _ := p.clinic()
			ticket := p.join(typeID)
			conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://")) //nolint:noctx // on this machine
			require.NoError(t, err)
			defer conn.Close() //nolint:errcheck // the test is over
			_, err = fmt.Fprintf(conn, "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n", ticket.text("ticketToken"))
			require.NoError(t, err)
			status := make([]byte, 12)
			_, err = io.ReadFull(conn, status)
			require.NoError(t, err)
			require.Equal(t, "HTTP/1.1 101", string(status))

			require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
			require.Eventually(t, func() bool { return strings.Contains(p.printed(), "stopping") }, patience, time.Millisecond)
			// The first may still be being taken in: somebody in a hurry presses again.
			again, gone := time.Now(), make(chan error, 1)
			go func() { gone <- p.cmd.Wait() }()
			for ended := false; !ended; {
				if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					require.ErrorIs(t, err, os.ErrProcessDone)
				}
				select {
				case err := <-gone:
					require.Error(t, err)
					ended = true
				case <-time.After(20 * time.Millisecond):
				}
			}
			require.Less(t, time.Since(again), 5*time.Second)
		})
	}
}

// Profiles are served only where the setting says.
func TestProfilesHaveAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	c := start(t, []string{"NOWSERVING_DATA=" + t.TempDir(), "NOWSERVING_DEBUG_ADDR=" + addr})
	status, _, err := c.try("GET", "/debug/pprof/", nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, status)
	status, _, err = newClient(t, "http://"+addr).try("GET", "/debug/pprof/goroutine?debug=1", nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
}
