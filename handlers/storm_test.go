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
	"nowserving/models"
	"nowserving/realtime/presence"
)

// ticketOf is what a phone needs to watch a booking.
type ticketOf struct{ id, token string }

// crowd lets n patients join, the half of them as customers who are signed in,
// and returns what their phones hold, in the order of the queue.
func (c *clinic) crowd(typeID string, n int) []ticketOf {
	c.t.Helper()
	tickets := make([]ticketOf, n)
	var token string
	for i := range tickets {
		if i%2 == 0 {
			a := c.join(typeID, nil)
			tickets[i] = ticketOf{a.str("id"), a.str("ticketToken")}
			continue
		}
		if i%(2*presence.MaxConnections) == 1 { // as many phones of one customer as may be connected
			token = c.patient(fmt.Sprintf("+96650001%04d", i))
		}
		a := c.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: token, body: joining(typeID, nil)}).ok()
		tickets[i] = ticketOf{a.str("result.id"), token}
	}
	return tickets
}

// arrive connects a phone and returns the place it is shown.
func (h *house) arrive(ctx context.Context, ticket ticketOf) (position int, err error) {
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

// storm lets all phones come at once; each must be shown its place.
func (h *house) storm(tickets []ticketOf) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*patience)
	defer cancel()
	var arriving sync.WaitGroup
	for i, ticket := range tickets {
		arriving.Go(func() {
			position, err := h.arrive(ctx, ticket)
			if !assert.NoError(h.t, err) {
				return
			}
			assert.Equal(h.t, i+1, position)
		})
	}
	arriving.Wait()
}

// reads notes the statements that read bookings, but for those that go on by
// themselves: the sweeper's, and the comparison's sums.
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

// commands is how often the house's Redis was asked where an index stands.
func (h *house) commands() (asked int) {
	h.t.Helper()
	options, err := redis.ParseURL(h.server.URL)
	require.NoError(h.t, err)
	rdb := redis.NewClient(options)
	defer func() { require.NoError(h.t, rdb.Close()) }()
	stats, err := rdb.InfoMap(h.t.Context(), "commandstats").Result()
	require.NoError(h.t, err)
	if text := stats["Commandstats"]["cmdstat_hmget"]; text != "" {
		_, err := fmt.Sscanf(text, "calls=%d,", &asked)
		require.NoError(h.t, err)
	}
	return asked
}

// A thousand phones that come at once to a node that has just started cost the
// database and Redis about as little as fifty do, also when Redis has started
// anew with the node and knows nothing.
func TestACrowdCostsAsMuchAsAFew(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgres)
	c := h.newClinic()
	kind := c.newType(nil)
	c.newResource(nil, kind)
	tickets := c.crowd(kind, 1000)
	for _, flushed := range []bool{false, true} {
		for _, n := range []int{50, 1000} {
			if flushed {
				h.server.FlushAll()
			}
			var reads reads
			before, began := h.commands(), time.Now()
			h.beside(reads.of(t)).storm(tickets[:n])
			seconds := int(time.Since(began) / time.Second)
			// Once those who wait. The rest: what a mirror loads and the hub asks
			// while it does, and how long visits take, which is looked at every 2 s.
			most := 30 + 5*seconds
			assert.Less(t, len(reads.noted()), most, "%d phones, flushed %v: %s", n, flushed, strings.Join(reads.noted(), "\n"))
			assert.Less(t, h.commands()-before, 500+10*seconds)
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

// What is kept for a crowd is never shown once it is outdated, nor to anybody
// it is not for.
func TestACrowdIsShownNothingOld(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		tickets := c.crowd(kind, 40)
		h.storm(tickets)

		read := func(ticket ticketOf) answer {
			return h.send(request{method: http.MethodGet, path: "/customer/bookings/" + ticket.id, token: ticket.token})
		}
		last := tickets[38]
		require.Equal(t, 1, read(last).ok().num("result.version"))
		c.act("hold", last.id, nil).ok()
		require.Equal(t, "HELD", read(last).ok().str("result.stage"))
		returned := c.act("return", last.id, nil).ok()
		require.Equal(t, 39, returned.num("result.queuePosition"))
		shown := read(last).ok()
		require.Equal(t, 3, shown.num("result.version"))
		require.Equal(t, 39, shown.num("result.queuePosition"))
		snapshot, _, err := h.watch(last.token, "booking:"+last.id)
		require.NoError(t, err)
		require.EqualValues(t, 3, at(snapshot, "booking.version"))

		c.act("assign", last.id, object{"resourceId": room}).ok()
		snapshot, _, err = h.watch(last.token, "booking:"+last.id)
		require.NoError(t, err)
		require.Equal(t, "CALLED", at(snapshot, "booking.stage"))
		require.Nil(t, at(snapshot, "booking.queuePosition"))

		stranger := c.patient("+966500000999")
		for _, other := range []string{tickets[0].token, stranger} {
			read(ticketOf{tickets[1].id, other}).refused(http.StatusNotFound, models.CodeBookingNotFound)
			_, _, err = h.watch(other, "booking:"+tickets[1].id)
			require.Error(t, err)
		}
	})
}

// A database that was restored to an earlier moment is the truth, also where the
// index has seen later versions.
func TestTheIndexFollowsARestoredDatabase(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		var tickets []ticketOf
		for range 4 {
			a := c.join(kind, nil)
			tickets = append(tickets, ticketOf{a.str("id"), a.str("ticketToken")})
		}
		read := func(ticket ticketOf) answer {
			return h.send(request{method: http.MethodGet, path: "/customer/bookings/" + ticket.id, token: ticket.token}).ok()
		}
		for _, ticket := range tickets[:2] {
			c.next(room).ok()
			c.act("end", ticket.id, nil).ok()
		}
		require.Equal(t, 1, read(tickets[2]).num("result.queuePosition"))
		h.exec(`UPDATE bookings SET status = 'PENDING_ASSIGNMENT', stage = 'WAITING', version = 1, resource_id = NULL,
			called_at = NULL, last_called_at = NULL, ended_at = NULL WHERE type_id = ?`, kind)
		restored := time.Now()
		require.Eventually(t, func() bool {
			for i, ticket := range tickets {
				if read(ticket).num("result.queuePosition") != i+1 {
					return false
				}
			}
			return c.staff(http.MethodGet, "/management/types/"+kind, nil).ok().num("result.pendingCount") == 4
		}, patience, 50*time.Millisecond)
		t.Log("right again after", time.Since(restored))
		require.Less(t, time.Since(restored), 10*time.Second, "five, and as many on a busy machine")
	})
}

// Whoever joins is told their place without Redis being asked again.
func TestAJoinIsOneCommand(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgres)
	c := h.newClinic()
	kind := c.newType(nil)
	c.newResource(nil, kind)
	require.Equal(t, 1, c.join(kind, nil).num("queuePosition"))
	before, began := h.commands(), time.Now()
	for i := range 50 {
		require.Equal(t, i+2, c.join(kind, nil).num("queuePosition"))
	}
	require.Less(t, h.commands()-before, 10+int(time.Since(began)/time.Second), "what is asked in the background aside")
}
