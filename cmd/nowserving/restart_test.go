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
	"nowserving/cmd/nowserving/node/nodetest"
)

// end asks the process to stop, waits until it has, and returns how long that
// took.
func (p *process) end() time.Duration {
	p.T.Helper()
	began := time.Now()
	require.NoError(p.T, p.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(p.T, p.cmd.Wait(), "%s", p.Log)
	return time.Since(began)
}

// balancer forwards TCP connections to the nodes in turn, and skips those that refuse.
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
			defer client.Close() //nolint:errcheck // the keepAliveClient closes it too
			_, _ = io.Copy(client, node)
		})
		_, _ = io.Copy(node, client)
		assert.NoError(b.t, node.Close())
		back.Wait()
		return
	}
}

// keepAliveClient makes requests over connections that it keeps. It changes the node if
// that refuses connections or answers with Connection: close.
type keepAliveClient struct {
	clinics []*nodetest.Clinic // the same one, through each node
	at      int
	moved   int
}

func newKeepAliveClient(c *nodetest.Clinic, at int, nodes ...*process) *keepAliveClient {
	k := &keepAliveClient{at: at % len(nodes)}
	for _, n := range nodes {
		k.clinics = append(k.clinics, c.Through(nodetest.Remote(c.T, n.URL)))
	}
	return k
}

// call makes a request that must succeed on one of the nodes.
func (k *keepAliveClient) call(method, path string, body any) (nodetest.Response, error) {
	for range 2 * len(k.clinics) {
		a, err := k.clinics[k.at].TryStaff(method, path, body)
		if errors.Is(err, syscall.ECONNREFUSED) {
			k.at = (k.at + 1) % len(k.clinics)
			continue
		}
		if err == nil && a.Status != http.StatusOK {
			err = fmt.Errorf("%d %s", a.Status, a.Raw)
		}
		if err != nil {
			return a, fmt.Errorf("%s %s: %w", method, path, err)
		}
		if a.Close {
			k.at = (k.at + 1) % len(k.clinics)
			k.moved++
		}
		return a, nil
	}
	return nodetest.Response{}, errors.New("no node accepts connections")
}

// checkedPhone is a phone that checks every position it gets.
type checkedPhone struct {
	t    *testing.T
	rank int // the position before the first call
	// sent and answered count the calls of patients: requests and answers.
	sent, answered *atomic.Int64

	mu        sync.Mutex
	position  int
	certain   int64 // calls answered when the last subscribing began
	snapshots int
	released  []time.Time // when a node asked the phone to reconnect
}

// check requires that a position is not worse than the last one, and not better than the
// calls so far allow.
func (p *checkedPhone) check(position int) {
	if position > p.position && p.position != 0 || int64(position) < int64(p.rank)-p.sent.Load() {
		p.t.Errorf("number %d got %d after %d, after %d calls", p.rank, position, p.position, p.sent.Load())
	}
	p.position = position
}

func (p *checkedPhone) watch(url string, ticket nodetest.Response) {
	client := centrifuge.NewJsonClient(url, centrifuge.Config{
		Token: ticket.Str("ticketToken"), MinReconnectDelay: 10 * time.Millisecond, MaxReconnectDelay: 200 * time.Millisecond,
	})
	client.OnConnecting(func(e centrifuge.ConnectingEvent) {
		if e.Code == 3001 {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.released = append(p.released, time.Now())
		}
	})
	sub, err := client.NewSubscription("booking:" + ticket.Str("id"))
	require.NoError(p.t, err)
	sub.OnSubscribing(func(centrifuge.SubscribingEvent) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.certain = p.answered.Load()
	})
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) {
		var snapshot struct{ Booking struct{ QueuePosition int } }
		assert.NoError(p.t, json.Unmarshal(e.Data, &snapshot))
		p.mu.Lock()
		defer p.mu.Unlock()
		if position := snapshot.Booking.QueuePosition; int64(position) > int64(p.rank)-p.certain {
			p.t.Errorf("number %d was shown %d, after %d answered calls", p.rank, position, p.certain)
		}
		p.snapshots++
		p.check(snapshot.Booking.QueuePosition)
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
			p.check(data.QueuePosition)
		}
	})
	require.NoError(p.t, client.Connect())
	require.NoError(p.t, sub.Subscribe())
	p.t.Cleanup(client.Close)
}

func (p *checkedPhone) shows() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.position
}

// Both nodes are restarted, one after the other, while patients join, read and are called.
func TestARollingRestartFailsNoRequestAndShowsNoWrongPosition(t *testing.T) {
	t.Parallel()
	environ := environ(t, nodetest.Postgres)
	a, b := startProcess(t, environ), startProcess(t, environ)
	clinic, typeID, resourceID := a.NewQueue()

	const ahead, watching = 100, 100
	for range ahead {
		clinic.Join(typeID, nil)
	}
	front := newBalancer(t, strings.TrimPrefix(a.URL, "http://"))
	var sent, answered atomic.Int64
	var phones []*checkedPhone
	for i := range watching {
		p := &checkedPhone{t: t, rank: ahead + i + 1, sent: &sent, answered: &answered}
		p.watch("ws://"+front.Addr().String()+"/connection/websocket", clinic.Join(typeID, nil))
		phones = append(phones, p)
	}
	all := func(position func(p *checkedPhone) int) func() bool {
		return func() bool {
			for _, p := range phones {
				if p.shows() != position(p) {
					return false
				}
			}
			return true
		}
	}
	require.Eventually(t, all(func(p *checkedPhone) int { return p.rank }), nodetest.Patience, 10*time.Millisecond)
	stop := make(chan struct{})
	var busy sync.WaitGroup
	var moved, requests atomic.Int64
	var mu sync.Mutex
	var joined []string
	work := func(every time.Duration, do func(c *keepAliveClient) error) {
		c := newKeepAliveClient(clinic, rand.N(2), a, b)
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
		work(20*time.Millisecond, func(c *keepAliveClient) error {
			a, err := c.call(http.MethodPut, nodetest.JoinPath, nodetest.Joining(typeID, nil))
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			joined = append(joined, a.Str("id"))
			return nil
		})
		work(10*time.Millisecond, func(c *keepAliveClient) error {
			mu.Lock()
			if len(joined) == 0 {
				mu.Unlock()
				return nil
			}
			id := joined[rand.N(len(joined))]
			mu.Unlock()
			a, err := c.call(http.MethodGet, "/management/bookings/"+id, nil)
			if read := a.Str("result.id"); err == nil && read != id {
				err = fmt.Errorf("%s was read instead of %s", read, id)
			}
			return err
		})
	}
	work(100*time.Millisecond, func(c *keepAliveClient) error {
		if sent.Load() == ahead {
			return nil
		}
		sent.Add(1)
		_, err := c.call(http.MethodPost, "/management/queue/next", nodetest.Object{"resourceId": resourceID})
		answered.Add(1)
		return err
	})

	for restart, leaving := range []*process{a, b} {
		// All phones reconnect to the other node, so that it has all of them at its restart.
		other := []*process{b, a}[restart]
		front.set(strings.TrimPrefix(other.URL, "http://"))
		require.Eventually(t, func() bool { return answered.Load() >= int64(10*(restart+1)) }, nodetest.Patience, time.Millisecond)
		refused := make(chan int, 1)
		go func() {
			for {
				status, body, err := leaving.get("/readyz")
				if err != nil || status != http.StatusOK {
					assert.Contains(t, body, "stopping")
					refused <- status
					return
				}
			}
		}()
		took := leaving.end()
		require.Equal(t, http.StatusServiceUnavailable, <-refused, "a stopping node answers that it is not ready")
		require.Less(t, took, node.DrainTimeout)
		require.Eventually(t, func() bool {
			for _, p := range phones {
				p.mu.Lock()
				back := len(p.released) == restart+1 && p.snapshots >= restart+2
				p.mu.Unlock()
				if !back {
					return false
				}
			}
			return true
		}, nodetest.Patience, 10*time.Millisecond)
		leaving.start()
	}
	served := answered.Load()
	require.Eventually(t, func() bool { return answered.Load() > served+5 }, nodetest.Patience, time.Millisecond)
	close(stop)
	busy.Wait()

	require.Eventually(t, all(func(p *checkedPhone) int { return p.rank - int(answered.Load()) }), nodetest.Patience, 10*time.Millisecond)
	waiting := listQueue(clinic.Through(b.Node), resourceID)
	for _, p := range phones {
		require.Equal(t, p.shows(), waiting[p.shows()-1].QueuePosition)
	}
	for restart := range 2 {
		first, last := phones[0].released[restart], phones[0].released[restart]
		for _, p := range phones {
			if at := p.released[restart]; at.Before(first) {
				first = at
			} else if at.After(last) {
				last = at
			}
		}
		require.Greater(t, last.Sub(first), 20*time.Millisecond, "phones were asked to reconnect all at once")
	}
	for _, id := range joined {
		clinic.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK()
	}
	require.Positive(t, moved.Load(), "no answer had Connection: close")
	t.Logf("%d requests, %d joins, %d answers with Connection: close", requests.Load(), len(joined), moved.Load())
}

// With a client that does not disconnect, a node stops at once at a second signal.
func TestANodeWithoutClientsStopsAtOnce(t *testing.T) {
	t.Parallel()
	nodetest.OnEach(t, func(t *testing.T, b nodetest.Backend) {
		p := startProcess(t, environ(t, b))
		p.Client.CloseIdleConnections()
		require.Less(t, p.end(), 5*time.Second)

		p.start()
		c, typeID, _ := p.NewQueue()
		ticket := c.Join(typeID, nil)
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.URL, "http://")) //nolint:noctx // on this machine
		require.NoError(t, err)
		defer conn.Close() //nolint:errcheck // the test is over
		_, err = fmt.Fprintf(conn, "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n", ticket.Str("ticketToken"))
		require.NoError(t, err)
		status := make([]byte, 12)
		_, err = io.ReadFull(conn, status)
		require.NoError(t, err)
		require.Equal(t, "HTTP/1.1 101", string(status))

		require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
		require.Eventually(t, func() bool { return strings.Contains(p.Log.String(), "stopping") }, nodetest.Patience, time.Millisecond)
		// The process may still be handling the first signal, so the second is repeated.
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

func TestProfilesAreServedAtTheDebugAddressOnly(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	h := nodetest.Start(t, nodetest.Embedded, func(c *node.Config) { c.DebugAddr = addr })
	require.Equal(t, http.StatusNotFound, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/debug/pprof/"}).Status)
	nodetest.Remote(t, "http://"+addr).Send(nodetest.Request{Method: http.MethodGet, Path: "/debug/pprof/goroutine?debug=1"}).OK()
}
