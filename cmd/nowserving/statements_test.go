package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
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

	"nowserving/booking/store/storetest"
)

// tapped stands between a node and its PostgreSQL and counts what passes.
type tapped struct {
	statements atomic.Int64 // run, by the node
	answered   atomic.Int64 // bytes, from the database
	open       sync.WaitGroup
}

// tap puts one before a database and returns it with its own address.
func tap(t testing.TB, address string) (*tapped, string) {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	d, server := &tapped{}, u.Host
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

func (d *tapped) join(t testing.TB, client net.Conn, server string) {
	behind, err := net.Dial("tcp", server) //nolint:noctx // on this machine
	if err != nil {
		t.Error(err)
		return
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		defer client.Close() //nolint:errcheck // one side has gone, so the other goes
		_, _ = io.Copy(io.MultiWriter(client, (*answers)(d)), behind)
	})
	err = d.forward(behind, bufio.NewReader(client))
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		t.Logf("a connection to the database broke: %v", err)
	}
	assert.NoError(t, behind.Close())
	copying.Wait()
}

// answers counts what the database says.
type answers tapped

func (a *answers) Write(p []byte) (int, error) {
	a.answered.Add(int64(len(p)))
	return len(p), nil
}

// forward passes on what a client says: a start without a kind, then messages
// of one byte for the kind and four for the length.
func (d *tapped) forward(to io.Writer, from *bufio.Reader) error {
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

// changing is a node whose queue changes, and everything that passes between it
// and its stores.
type changing struct {
	*client
	database           *tapped
	redis              *storetest.RedisServer
	typeID, resourceID string
}

// newChanging starts a node with so many waiting in a queue.
func newChanging(t testing.TB, waiting int) *changing {
	t.Helper()
	c := &changing{redis: storetest.Redis(t)}
	var address string
	c.database, address = tap(t, storetest.Postgres(t))
	c.client = start(t, []string{"DATABASE_URL=" + address, "REDIS_URL=" + c.redis.URL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef"})
	c.typeID, c.resourceID = c.clinic()
	c.joinAtOnce(c.typeID, waiting)
	// What the joins left behind to do is no part of what follows.
	require.Eventually(t, func() bool { return c.metric(`nowserving_notifications_oldest_due_seconds{queue="announce"}`) == 0 }, time.Minute, 50*time.Millisecond)
	return c
}

// joinAtOnce lets many join, some side by side, and returns their bookings.
func (c *client) joinAtOnce(typeID string, n int) []string {
	c.t.Helper()
	ids := make([]string, n)
	var next atomic.Int64
	var joining sync.WaitGroup
	for range joiners {
		joining.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				status, answer, err := c.try("PUT", "/management/scheduling/new", map[string]any{"type": typeID, "assign": false, "assignmentTimeout": 180})
				var b struct{ ID string }
				if err == nil {
					err = json.Unmarshal(answer, &b)
				}
				if err != nil || status != http.StatusOK {
					c.t.Errorf("%d %s %v", status, answer, err)
					return
				}
				ids[i] = b.ID
			}
		})
	}
	joining.Wait()
	return ids
}

// change lets one join and one be called: two changes of the queue, and it is
// as long as before.
func (c *changing) change() {
	c.join(c.typeID)
	c.call("POST", "/management/queue/next", map[string]any{"resourceId": c.resourceID})
}

// work is what one change of a queue costs.
type work struct{ statements, answered, commands float64 }

// measure returns the work of each of the changes that do makes.
func (c *changing) measure(changes int, do func()) work {
	c.t.Helper()
	commands := func() (n int) {
		for _, calls := range c.redis.Calls() {
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

// BenchmarkChange is the work of one change of a queue in which so many wait:
// the statements its node sends to PostgreSQL, jobs and all that goes on in the
// background included, the bytes that come back, and the commands that Redis
// runs, those within scripts included.
func BenchmarkChange(b *testing.B) {
	for _, waiting := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			c := newChanging(b, waiting)
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

// A change is no more work in a long queue than in a short one.
//
//nolint:tparallel // the two are compared when both have ended
func TestAChangeIsTheSameWorkHoweverManyWait(t *testing.T) {
	t.Parallel()
	const changes = 40
	lengths := []int{10, 120}
	of := make([]work, len(lengths))
	t.Run("measured", func(t *testing.T) { // ends when both have
		for i, waiting := range lengths {
			t.Run(strconv.Itoa(waiting), func(t *testing.T) {
				t.Parallel()
				c := newChanging(t, waiting)
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
