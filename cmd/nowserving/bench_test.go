package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

// joiners is how many patients join at the same time.
const joiners = 32

// BenchmarkJoin is joins per second through HTTP, with everything that belongs
// to one: a customer, a ticket, the booking, its event, the index, the place.
func BenchmarkJoin(b *testing.B) {
	for _, be := range backends {
		b.Run(be.name, func(b *testing.B) {
			c := start(b, be.settings(b))
			typeID, _ := c.clinic()
			inParallel(b, func() error { return c.tryJoin(typeID) })
		})
	}
}

// tryJoin is join for other goroutines than the benchmark's.
func (c *client) tryJoin(typeID string) error {
	status, answer, err := c.try("PUT", "/management/scheduling/new", map[string]any{"type": typeID, "assign": false})
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, answer)
	}
	return err
}

// BenchmarkJoinSync is what waiting for the disk costs a join on the embedded
// database: one patient after another, and many at once.
func BenchmarkJoinSync(b *testing.B) {
	for _, sync := range []string{"full", "normal"} {
		c := start(b, []string{"NOWSERVING_DATA=" + b.TempDir(), "NOWSERVING_SQLITE_SYNC=" + sync})
		typeID, _ := c.clinic()
		b.Run("one/"+sync, func(b *testing.B) {
			for range b.N {
				c.join(typeID)
			}
		})
		b.Run("many/"+sync, func(b *testing.B) {
			inParallel(b, func() error { return c.tryJoin(typeID) })
		})
	}
}

// BenchmarkJoinBare is the floor on PostgreSQL: the same four inserts in one
// transaction, on pgx and nothing else.
func BenchmarkJoinBare(b *testing.B) {
	ctx := b.Context()
	url := storetest.Postgres(b)
	s, err := store.Open(ctx, store.Options{Log: slog.New(slog.DiscardHandler), URL: url, Now: time.Now})
	require.NoError(b, err)
	_, err = s.Migrate(ctx)
	require.NoError(b, err)
	require.NoError(b, s.Close())
	config, err := pgxpool.ParseConfig(url)
	require.NoError(b, err)
	config.MaxConns = 16
	pool, err := pgxpool.NewWithConfig(ctx, config)
	require.NoError(b, err)
	defer pool.Close()
	for _, sql := range []string{
		"INSERT INTO organizations (id, name, timezone, created_at) VALUES ('o', 'o', 'UTC', now())",
		"INSERT INTO booking_types (id, organization_id, name, prefix, minutes, is_on, auto_confirm, book_from_website, created_at, updated_at) VALUES ('t', 'o', 't', 'A', 10, true, true, true, now(), now())", //nolint:dupword // values, not words
	} {
		_, err := pool.Exec(ctx, sql)
		require.NoError(b, err)
	}
	inParallel(b, func() error {
		tx, err := pool.Begin(ctx)
		if err != nil {
			return err
		}
		defer tx.Rollback(ctx) //nolint:errcheck // after a commit there is nothing to roll back
		customer, booking := models.NewID(), models.NewID()
		var n int
		if _, err = tx.Exec(ctx, "INSERT INTO customers (id, organization_id, created_at, updated_at) VALUES ($1, 'o', now(), now())", customer); err != nil {
			return err
		}
		if err = tx.QueryRow(ctx, `INSERT INTO ticket_counters VALUES ('o', '2026-01-01', 'A', 1)
			ON CONFLICT (organization_id, local_day, prefix) DO UPDATE SET last_number = ticket_counters.last_number + 1 RETURNING last_number`).Scan(&n); err != nil {
			return err
		}
		//nolint:dupword // values, not words
		if _, err = tx.Exec(ctx, `INSERT INTO bookings (id, organization_id, customer_id, type_id, status, stage, ticket, local_day, priority, version,
			assignment_timeout, assignment_deadline, created_at, updated_at, pending_at)
			VALUES ($1, 'o', $2, 't', 'PENDING_ASSIGNMENT', 'WAITING', $3, '2026-01-01', 0, 1, 60, now() + interval '1 hour', now(), now(), now())`,
			booking, customer, fmt.Sprintf("A%03d", n)); err != nil {
			return err
		}
		if _, err = tx.Exec(ctx, `INSERT INTO events (organization_id, booking_id, booking_version, type, data, created_at)
			VALUES ('o', $1, 1, 'NEW_PENDING_UNASSIGNED_BOOKING', '{}', now())`, booking); err != nil {
			return err
		}
		return tx.Commit(ctx)
	})
}

// inParallel runs b.N joins from joiners at once and reports them per second.
func inParallel(b *testing.B, join func() error) {
	b.Helper()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range joiners {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := join(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "joins/s")
}

// BenchmarkHeadServed is the time from the request that takes the head of a
// queue to the moment the last of its waiting clients has its own new place.
func BenchmarkHeadServed(b *testing.B) {
	for _, be := range backends {
		for _, waiting := range []int{100, 1_000, 10_000} {
			b.Run(fmt.Sprintf("%s/waiting=%d", be.name, waiting), func(b *testing.B) {
				// A process of its own: each side has its own file descriptors.
				c := startProcess(b, be.settings(b)).client
				typeID, resourceID := c.clinic()
				crowd := newCrowd(b, c, typeID, waiting+1)
				b.ResetTimer()
				for range b.N {
					b.StopTimer()
					want := crowd.expect()
					b.StartTimer()
					c.call("POST", "/management/queue/next", map[string]any{"resourceId": resourceID})
					<-want
					b.StopTimer()
					crowd.add(1) // as long as before
					b.StartTimer()
				}
			})
		}
	}
}

// crowd are patients who wait in one queue, each with a live connection.
type crowd struct {
	b      *testing.B
	c      *client
	typeID string

	mu      sync.Mutex
	clients []*watcher // in the order of the queue
	missing int
	done    chan struct{}
}

// watcher is one waiting patient's phone.
type watcher struct {
	position, want int
}

func newCrowd(b *testing.B, c *client, typeID string, n int) *crowd {
	w := &crowd{b: b, c: c, typeID: typeID}
	w.add(n)
	return w
}

// add lets n patients join and watch.
func (w *crowd) add(n int) {
	w.b.Helper()
	tickets := make([]object, n)
	for i := range tickets {
		tickets[i] = w.c.join(w.typeID)
	}
	var dialing sync.WaitGroup
	slots := make(chan struct{}, 64)
	for _, ticket := range tickets {
		person := &watcher{}
		w.mu.Lock()
		w.clients = append(w.clients, person)
		w.mu.Unlock()
		slots <- struct{}{}
		dialing.Go(func() {
			defer func() { <-slots }()
			w.watch(person, ticket.text("id"), ticket.text("ticketToken"))
		})
	}
	dialing.Wait()
}

func (w *crowd) watch(person *watcher, bookingID, token string) {
	ctx, cancel := context.WithTimeout(w.b.Context(), time.Minute)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(w.c.url, "http")+"/connection/websocket", nil)
	if err != nil {
		w.b.Error(err)
		return
	}
	if res.Body != nil {
		defer res.Body.Close() //nolint:errcheck // there is nothing in it
	}
	hello := fmt.Sprintf(`{"id":1,"connect":{"token":%q}}`+"\n"+`{"id":2,"subscribe":{"channel":%q}}`, token, "booking:"+bookingID)
	if err := conn.Write(ctx, websocket.MessageText, []byte(hello)); err != nil {
		w.b.Error(err)
		return
	}
	ready := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer conn.CloseNow() //nolint:errcheck // the benchmark is over
		for {
			_, frame, err := conn.Read(context.WithoutCancel(w.b.Context()))
			if err != nil {
				return
			}
			for line := range strings.SplitSeq(strings.TrimSpace(string(frame)), "\n") {
				if line == "{}" {
					if err := conn.Write(context.WithoutCancel(w.b.Context()), websocket.MessageText, []byte("{}")); err != nil {
						return
					}
					continue
				}
				var reply struct {
					ID        int
					Error     json.RawMessage
					Subscribe *struct {
						Data struct{ Booking struct{ QueuePosition int } }
					}
					Push struct {
						Pub struct{ Data struct{ QueuePosition int } }
					}
				}
				if err := json.Unmarshal([]byte(line), &reply); err != nil || reply.Error != nil {
					w.b.Errorf("%s: %v", line, err)
					return
				}
				if reply.Subscribe != nil {
					w.told(person, reply.Subscribe.Data.Booking.QueuePosition)
					close(ready)
				} else if p := reply.Push.Pub.Data.QueuePosition; p > 0 {
					w.told(person, p)
				}
			}
		}
	})
	w.b.Cleanup(func() {
		conn.CloseNow() //nolint:errcheck // the benchmark is over
		reading.Wait()
	})
	select {
	case <-ready:
	case <-ctx.Done():
		w.b.Error("not subscribed in time")
	}
}

func (w *crowd) told(person *watcher, position int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	person.position = position
	if person.want != 0 && position == person.want {
		person.want = 0
		if w.missing--; w.missing == 0 {
			close(w.done)
		}
	}
}

// expect says that the head is about to be served; the channel closes when
// everybody behind it has its new place.
func (w *crowd) expect() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clients = w.clients[1:]
	w.missing, w.done = len(w.clients), make(chan struct{})
	for i, person := range w.clients {
		person.want = i + 1
	}
	return w.done
}

// BenchmarkRedisCommands counts the commands that one change costs, as the
// queue grows.
func BenchmarkRedisCommands(b *testing.B) {
	for _, waiting := range []int{10, 1_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			server := storetest.Redis(b)
			c := start(b, []string{
				"DATABASE_URL=" + storetest.Postgres(b), "REDIS_URL=" + server.URL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef",
			})
			typeID, resourceID := c.clinic()
			for range waiting {
				c.join(typeID)
			}
			options, err := redis.ParseURL(server.URL)
			require.NoError(b, err)
			rdb := redis.NewClient(options)
			defer rdb.Close() //nolint:errcheck // the benchmark is over
			scripts := func() (calls float64) {
				stats, err := rdb.InfoMap(b.Context(), "commandstats").Result()
				require.NoError(b, err)
				for _, name := range []string{"cmdstat_evalsha", "cmdstat_eval"} {
					var n float64
					if text := stats["Commandstats"][name]; text != "" {
						_, err := fmt.Sscanf(text, "calls=%f,", &n)
						require.NoError(b, err)
					}
					calls += n
				}
				return calls
			}
			before := scripts()
			b.ResetTimer()
			for range b.N {
				c.join(typeID)
				c.call("POST", "/management/queue/next", map[string]any{"resourceId": resourceID})
			}
			b.StopTimer()
			b.ReportMetric((scripts()-before)/float64(2*b.N), "scripts/change")
		})
	}
}

// BenchmarkStart is the time from the first line of serve to the first answer,
// embedded, with nothing there yet.
func BenchmarkStart(b *testing.B) {
	for range b.N {
		c := start(b, []string{"NOWSERVING_DATA=" + b.TempDir()})
		status, answer, err := c.try("GET", "/readyz", nil)
		require.NoError(b, err)
		require.Equal(b, http.StatusOK, status, string(answer))
	}
}
