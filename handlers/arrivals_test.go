package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
	"nowserving/realtime/presence"
)

// ticketOf is what a phone needs to watch a booking.
type ticketOf struct{ id, token string }

// joinMany lets n patients join, half of them as customers who are signed in. It
// returns the tickets in the order of the queue.
func joinMany(c *nodetest.Clinic, typeID string, n int) []ticketOf {
	c.T.Helper()
	tickets := make([]ticketOf, n)
	var token string
	for i := range tickets {
		if i%2 == 0 {
			a := c.Join(typeID, nil)
			tickets[i] = ticketOf{a.Str("id"), a.Str("ticketToken")}
			continue
		}
		if i%(2*presence.MaxConnections) == 1 { // as many phones of one customer as may be connected
			token = c.Patient(fmt.Sprintf("+96650001%04d", i))
		}
		a := c.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: token, Body: nodetest.Joining(typeID, nil)}).OK()
		tickets[i] = ticketOf{a.Str("result.id"), token}
	}
	return tickets
}

// connectPhone connects a phone and returns the position it is shown.
func connectPhone(ctx context.Context, h *nodetest.Node, ticket ticketOf) (position int, err error) {
	conn, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.CloseNow()) }()
	if res.Body != nil {
		defer res.Body.Close() //nolint:errcheck // there is nothing in it
	}
	hello := fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`+"\n"+`{"id":2,"subscribe":{"channel":"booking:%s"}}`, ticket.token, ticket.id)
	if err := conn.Write(ctx, websocket.MessageText, []byte(hello)); err != nil {
		return 0, err
	}
	for {
		_, frame, err := conn.Read(ctx)
		if err != nil {
			return 0, err
		}
		for line := range strings.SplitSeq(strings.TrimSpace(string(frame)), "\n") {
			var reply struct {
				Error     json.RawMessage
				Subscribe *struct {
					Data struct {
						Booking struct {
							ID            string
							QueuePosition int
						}
					}
				}
			}
			if err := json.Unmarshal([]byte(line), &reply); err != nil || reply.Error != nil {
				return 0, fmt.Errorf("%s: %w", line, err)
			}
			if reply.Subscribe != nil {
				if reply.Subscribe.Data.Booking.ID != ticket.id {
					return 0, fmt.Errorf("%s was shown instead of %s", reply.Subscribe.Data.Booking.ID, ticket.id)
				}
				return reply.Subscribe.Data.Booking.QueuePosition, nil
			}
		}
	}
}

// connectAll connects all phones at once. Each must be shown its position.
func connectAll(h *nodetest.Node, tickets []ticketOf) {
	h.T.Helper()
	ctx, cancel := context.WithTimeout(h.T.Context(), 2*nodetest.Patience)
	defer cancel()
	var connecting sync.WaitGroup
	for i, ticket := range tickets {
		connecting.Go(func() {
			position, err := connectPhone(ctx, h, ticket)
			if !assert.NoError(h.T, err) {
				return
			}
			assert.Equal(h.T, i+1, position)
		})
	}
	connecting.Wait()
}

// reads collects the statements that read bookings, except those of the background:
// the sweeper's, and the sums of the comparison.
type reads struct {
	mu  sync.Mutex
	all []string
}

func (r *reads) of(t testing.TB) func(*store.Store) {
	return func(s *store.Store) {
		note := func(db *gorm.DB) {
			sql := db.Statement.SQL.String()
			if strings.Contains(sql, "bookings") && !strings.Contains(sql, "_deadline") && !strings.Contains(sql, "sum(") {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.all = append(r.all, sql[:min(len(sql), 120)])
			}
		}
		on := s.Read(context.Background()).Callback()
		require.NoError(t, on.Query().After("gorm:query").Register("test:query", note))
		require.NoError(t, on.Raw().After("gorm:raw").Register("test:raw", note))
		require.NoError(t, on.Row().After("gorm:row").Register("test:row", note))
	}
}

func (r *reads) noted() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.all...)
}

// commands returns how often the node's Redis was asked for the version of an index.
func commands(h *nodetest.Node) (asked int) {
	h.T.Helper()
	options, err := redis.ParseURL(h.RedisServer.URL)
	require.NoError(h.T, err)
	rdb := redis.NewClient(options)
	defer func() { require.NoError(h.T, rdb.Close()) }()
	stats, err := rdb.InfoMap(h.T.Context(), "commandstats").Result()
	require.NoError(h.T, err)
	if text := stats["Commandstats"]["cmdstat_hmget"]; text != "" {
		_, err := fmt.Sscanf(text, "calls=%d,", &asked)
		require.NoError(h.T, err)
	}
	return asked
}

// 400 phones that connect at once to a node that has just started cause about as many
// queries and commands as 50 do. This holds for an empty Redis too.
func TestFourHundredPhonesCostTheDatabaseAsMuchAsFifty(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Postgres)
	c := h.NewClinic()
	kind := c.NewType(nil)
	c.NewResource(nil, kind)
	tickets := joinMany(c, kind, 400)
	for _, flushed := range []bool{false, true} {
		for _, n := range []int{50, 400} {
			if flushed {
				h.RedisServer.FlushAll()
			}
			var reads reads
			before, began := commands(h), time.Now()
			connectAll(h.Beside(reads.of(t)), tickets[:n])
			seconds := int(time.Since(began) / time.Second)
			// The waiting bookings are read once. The rest is what a mirror loads, what the
			// hub asks meanwhile, and the lengths of visits, which are read every 2 s.
			most := 30 + 5*seconds
			assert.Less(t, len(reads.noted()), most, "%d phones, flushed %v: %s", n, flushed, strings.Join(reads.noted(), "\n"))
			assert.Less(t, commands(h)-before, 500+10*seconds)
			whole := 0
			for _, sql := range reads.noted() {
				if strings.HasPrefix(sql, `SELECT * FROM "bookings" WHERE organization_id = $1 AND stage = $2`) {
					whole++
				}
			}
			assert.Equal(t, 1, whole)
		}
	}
}

// A booking that is cached for many phones is not shown after a change, nor to others.
func TestACachedBookingIsShownUpToDateAndOnlyToItsOwner(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		tickets := joinMany(c, kind, 40)
		connectAll(h, tickets)

		read := func(ticket ticketOf) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + ticket.id, Token: ticket.token})
		}
		last := tickets[38]
		require.Equal(t, 1, read(last).OK().Num("result.version"))
		c.Act("hold", last.id, nil).OK()
		require.Equal(t, "HELD", read(last).OK().Str("result.stage"))
		returned := c.Act("return", last.id, nil).OK()
		require.Equal(t, 39, returned.Num("result.queuePosition"))
		shown := read(last).OK()
		require.Equal(t, 3, shown.Num("result.version"))
		require.Equal(t, 39, shown.Num("result.queuePosition"))
		snapshot, _, err := h.Watch(last.token, "booking:"+last.id)
		require.NoError(t, err)
		require.EqualValues(t, 3, nodetest.At(snapshot, "booking.version"))

		c.Act("assign", last.id, nodetest.Object{"resourceId": room}).OK()
		snapshot, _, err = h.Watch(last.token, "booking:"+last.id)
		require.NoError(t, err)
		require.Equal(t, "CALLED", nodetest.At(snapshot, "booking.stage"))
		require.Nil(t, nodetest.At(snapshot, "booking.queuePosition"))

		stranger := c.Patient("+966500000999")
		for _, other := range []string{tickets[0].token, stranger} {
			read(ticketOf{tickets[1].id, other}).Refused(http.StatusNotFound, models.CodeBookingNotFound)
			_, _, err = h.Watch(other, "booking:"+tickets[1].id)
			require.Error(t, err)
		}
	})
}

// A database that was restored to an earlier moment is the truth, also where the
// index has seen later versions.
func TestTheIndexFollowsARestoredDatabase(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		var tickets []ticketOf
		for range 4 {
			a := c.Join(kind, nil)
			tickets = append(tickets, ticketOf{a.Str("id"), a.Str("ticketToken")})
		}
		read := func(ticket ticketOf) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + ticket.id, Token: ticket.token}).OK()
		}
		for _, ticket := range tickets[:2] {
			c.Next(room).OK()
			c.Act("end", ticket.id, nil).OK()
		}
		require.Equal(t, 1, read(tickets[2]).Num("result.queuePosition"))
		h.Exec(`UPDATE bookings SET status = 'PENDING_ASSIGNMENT', stage = 'WAITING', version = 1, resource_id = NULL,
			called_at = NULL, last_called_at = NULL, ended_at = NULL WHERE type_id = ?`, kind)
		restored := time.Now()
		require.Eventually(t, func() bool {
			for i, ticket := range tickets {
				if read(ticket).Num("result.queuePosition") != i+1 {
					return false
				}
			}
			return c.Staff(http.MethodGet, "/management/types/"+kind, nil).OK().Num("result.pendingCount") == 4
		}, nodetest.Patience, 50*time.Millisecond)
		t.Log("right again after", time.Since(restored))
		require.Less(t, time.Since(restored), 10*time.Second, "five, and as many on a busy machine")
	})
}

// The answer to a join has the position without another command to Redis.
func TestJoiningDoesNotAskRedisForThePosition(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Postgres)
	c := h.NewClinic()
	kind := c.NewType(nil)
	c.NewResource(nil, kind)
	require.Equal(t, 1, c.Join(kind, nil).Num("queuePosition"))
	before, began := commands(h), time.Now()
	for i := range 50 {
		require.Equal(t, i+2, c.Join(kind, nil).Num("queuePosition"))
	}
	require.Less(t, commands(h)-before, 10+int(time.Since(began)/time.Second), "what is asked in the background aside")
}
