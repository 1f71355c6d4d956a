package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
)

// countingProxy is a TCP proxy between a node and its PostgreSQL that counts statements.
type countingProxy struct {
	statements atomic.Int64 // that the node runs
	answered   atomic.Int64 // bytes from the database
	open       sync.WaitGroup
}

// countBetween starts a proxy before a database and returns it with its URL.
func countBetween(t testing.TB, address string) (*countingProxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d, server := &countingProxy{}, u.Host
	d.open.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			d.open.Go(func() { d.join(t, client, server) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		d.open.Wait()
	})
	u.Host = listener.Addr().String()
	return d, u.String()
}

func (d *countingProxy) join(t testing.TB, client net.Conn, server string) {
	behind, err := net.Dial("tcp", server) //nolint:noctx // on this machine
	if err != nil {
		t.Error(err)
		return
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		defer client.Close() //nolint:errcheck // the other side is closed
		_, _ = io.Copy(io.MultiWriter(client, (*answers)(d)), behind)
	})
	err = d.forward(behind, bufio.NewReader(client))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		t.Logf("a connection to the database broke: %v", err)
	}
	assert.NoError(t, behind.Close())
	copying.Wait()
}

// answers counts the bytes from the database.
type answers countingProxy

func (a *answers) Write(p []byte) (int, error) {
	a.answered.Add(int64(len(p)))
	return len(p), nil
}

// forward passes on what a client sends: a start message without a kind, then messages of
// one byte for the kind and four for the length.
func (d *countingProxy) forward(to io.Writer, from *bufio.Reader) error {
	for header := 4; ; header = 5 {
		head, err := from.Peek(header)
		if err != nil {
			return err
		}
		if head[0] == 'E' || head[0] == 'Q' { // Execute, Query
			d.statements.Add(1)
		}
		length := int64(binary.BigEndian.Uint32(head[header-4:])) + int64(header-4)
		if _, err := io.CopyN(to, from, length); err != nil {
			return err
		}
	}
}

// countedNode is a node whose queue changes, with counts of what it asks of its stores.
type countedNode struct {
	*nodetest.Clinic
	database           *countingProxy
	typeID, resourceID string
}

// startCounted starts a node with a queue in which patients wait.
func startCounted(t testing.TB, waiting int) *countedNode {
	t.Helper()
	c := &countedNode{}
	h := nodetest.Start(t, nodetest.Postgres, inProduction, func(o *node.Config) {
		c.database, o.DatabaseURL = countBetween(t, o.DatabaseURL)
	})
	c.Clinic, c.typeID, c.resourceID = h.NewQueue()
	joinAtOnce(c.Clinic, c.typeID, waiting)
	// The jobs of these joins must not be counted.
	require.Eventually(t, func() bool { return metric(h, `nowserving_notifications_oldest_due_seconds{queue="announce"}`) == 0 }, time.Minute, 50*time.Millisecond)
	return c
}

// joinAtOnce lets n patients join, up to joiners at a time, and returns their bookings.
func joinAtOnce(c *nodetest.Clinic, typeID string, n int) []string {
	c.T.Helper()
	ids := make([]string, n)
	var next atomic.Int64
	var joining sync.WaitGroup
	for range joiners {
		joining.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				a, err := c.TryJoin(typeID)
				if err != nil || a.Status != http.StatusOK {
					c.T.Errorf("%d %s %v", a.Status, a.Raw, err)
					return
				}
				ids[i] = a.Str("id")
			}
		})
	}
	joining.Wait()
	return ids
}

// change makes two changes of the queue after which it is as long as before: one patient
// joins and one is called.
func (c *countedNode) change() {
	require.NoError(c.T, joinAndCall(c.Clinic, c.typeID, c.resourceID))
}

// work is the cost of one change of a queue.
type work struct{ statements, answered, commands float64 }

// measure returns the work of each of the changes that do makes.
func (c *countedNode) measure(changes int, do func()) work {
	c.T.Helper()
	commands := func() (n int) {
		for _, calls := range c.RedisServer.Calls() {
			n += calls
		}
		return n
	}
	statements, answered, asked := c.database.statements.Load(), c.database.answered.Load(), commands()
	do()
	n := float64(changes)
	return work{
		float64(c.database.statements.Load()-statements) / n,
		float64(c.database.answered.Load()-answered) / n,
		float64(commands()-asked) / n,
	}
}

// BenchmarkChange measures the work of one change of a queue: the statements that its node
// sends to PostgreSQL, with those of jobs and other background work, the bytes that come
// back, and the commands that Redis runs, with those in scripts.
func BenchmarkChange(b *testing.B) {
	for _, waiting := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			c := startCounted(b, waiting)
			b.ResetTimer()
			w := c.measure(2*b.N, func() {
				for range b.N {
					c.change()
				}
			})
			b.StopTimer()
			b.ReportMetric(w.statements, "statements/change")
			b.ReportMetric(w.answered, "bytes/change")
			b.ReportMetric(w.commands, "commands/change")
		})
	}
}

//nolint:tparallel // the two are compared when both have ended
func TestAChangeIsTheSameWorkInALongQueueAsInAShortOne(t *testing.T) {
	t.Parallel()
	const changes = 40
	lengths := []int{10, 120}
	of := make([]work, len(lengths))
	t.Run("measured", func(t *testing.T) { // ends when both have
		for i, waiting := range lengths {
			t.Run(strconv.Itoa(waiting), func(t *testing.T) {
				t.Parallel()
				c := startCounted(t, waiting)
				of[i] = c.measure(2*changes, func() {
					for range changes {
						c.change()
					}
				})
			})
		}
	})
	for _, pair := range [][2]float64{{of[0].statements, of[1].statements}, {of[0].answered, of[1].answered}, {of[0].commands, of[1].commands}} {
		require.Positive(t, pair[0])
		require.Less(t, pair[1], pair[0]*1.5, "%d waiting: %+v, %d waiting: %+v", lengths[0], of[0], lengths[1], of[1])
	}
}
