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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// joiners is how many patients join at the same time.
const joiners = 32

// inProduction undoes what makes nodes of tests patient and their log complete.
func inProduction(c *node.Config) {
	c.SQLiteSync, c.Adjust, c.Log = "", node.Adjust{}, slog.New(slog.DiscardHandler)
}

// BenchmarkJoin measures joins per second through HTTP. A join makes a customer, a ticket,
// the booking and its event, changes the index and answers with the position.
func BenchmarkJoin(b *testing.B) {
	for _, backend := range nodetest.Backends {
		b.Run(string(backend), func(b *testing.B) {
			c, typeID, _ := nodetest.Start(b, backend, inProduction).NewQueue()
			inParallel(b, func() error { return succeeded(c.TryJoin(typeID)) })
		})
	}
}

// succeeded returns an error unless the answer is 200.
func succeeded(a nodetest.Response, err error) error {
	if err == nil && a.Status != http.StatusOK {
		err = fmt.Errorf("%d %s", a.Status, a.Raw)
	}
	return err
}

// joinAndCall makes two changes of a queue.
func joinAndCall(c *nodetest.Clinic, typeID, resourceID string) error {
	if err := succeeded(c.TryJoin(typeID)); err != nil {
		return err
	}
	return succeeded(c.TryStaff(http.MethodPost, "/management/queue/next", nodetest.Object{"resourceId": resourceID}))
}

// BenchmarkJoinSync compares joins that wait for the disk of the embedded database with
// joins that do not: one after another, and many at once.
func BenchmarkJoinSync(b *testing.B) {
	for _, sync := range []string{"full", "normal"} {
		c, typeID, _ := nodetest.Start(b, nodetest.Embedded, inProduction, func(c *node.Config) { c.SQLiteSync = sync }).NewQueue()
		b.Run("one/"+sync, func(b *testing.B) {
			for range b.N {
				require.NoError(b, succeeded(c.TryJoin(typeID)))
			}
		})
		b.Run("many/"+sync, func(b *testing.B) {
			inParallel(b, func() error { return succeeded(c.TryJoin(typeID)) })
		})
	}
}

// BenchmarkJoinBare measures the least that a join costs on PostgreSQL: the same four
// inserts in one transaction, with pgx only.
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

// BenchmarkHeadServed measures the time from the request that calls the head of a queue to
// the moment when the last waiting client has its new position.
func BenchmarkHeadServed(b *testing.B) {
	for _, backend := range nodetest.Backends {
		for _, waiting := range []int{100, 1_000, 10_000} {
			b.Run(fmt.Sprintf("%s/waiting=%d", backend, waiting), func(b *testing.B) {
				// Node and clients need file descriptors of their own.
				c, typeID, resourceID := startProcess(b, environ(b, backend)).NewQueue()
				queue := newWatchedQueue(b, c, typeID, waiting+1)
				b.ResetTimer()
				for range b.N {
					b.StopTimer()
					want := queue.expect()
					b.StartTimer()
					c.Next(resourceID).OK()
					<-want
					b.StopTimer()
					queue.add(1) // so that the queue is as long as before
					b.StartTimer()
				}
			})
		}
	}
}

// watchedQueue is a queue whose patients each have a live connection.
type watchedQueue struct {
	b      *testing.B
	c      *nodetest.Clinic
	typeID string

	mu      sync.Mutex
	phones  []*waitingPhone // in the order of the queue
	missing int
	done    chan struct{}
}

// waitingPhone is one waiting patient's phone.
type waitingPhone struct {
	want int // the position that is awaited, or 0
}

func newWatchedQueue(b *testing.B, c *nodetest.Clinic, typeID string, n int) *watchedQueue {
	w := &watchedQueue{b: b, c: c, typeID: typeID}
	w.add(n)
	return w
}

// add lets n patients join and watch.
func (w *watchedQueue) add(n int) {
	w.b.Helper()
	tickets := make([]nodetest.Response, n)
	for i := range tickets {
		tickets[i] = w.c.Join(w.typeID, nil)
	}
	var dialing sync.WaitGroup
	slots := make(chan struct{}, 64)
	for _, ticket := range tickets {
		phone := &waitingPhone{}
		w.mu.Lock()
		w.phones = append(w.phones, phone)
		w.mu.Unlock()
		slots <- struct{}{}
		dialing.Go(func() {
			defer func() { <-slots }()
			w.watch(phone, ticket.Str("id"), ticket.Str("ticketToken"))
		})
	}
	dialing.Wait()
}

func (w *watchedQueue) watch(phone *waitingPhone, bookingID, token string) {
	ctx, cancel := context.WithTimeout(w.b.Context(), time.Minute)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(w.c.URL, "http")+"/connection/websocket", nil)
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
					w.receive(phone, reply.Subscribe.Data.Booking.QueuePosition)
					close(ready)
				} else if p := reply.Push.Pub.Data.QueuePosition; p > 0 {
					w.receive(phone, p)
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

func (w *watchedQueue) receive(phone *waitingPhone, position int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if phone.want != 0 && position == phone.want {
		phone.want = 0
		if w.missing--; w.missing == 0 {
			close(w.done)
		}
	}
}

// expect prepares for a call of the head. The channel closes when every other phone has its
// new position.
func (w *watchedQueue) expect() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phones = w.phones[1:]
	w.missing, w.done = len(w.phones), make(chan struct{})
	for i, phone := range w.phones {
		phone.want = i + 1
	}
	return w.done
}

// BenchmarkRedisCommands counts the commands that one change costs, as the
// queue grows.
func BenchmarkRedisCommands(b *testing.B) {
	for _, waiting := range []int{10, 1_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			c, typeID, resourceID := nodetest.Start(b, nodetest.Postgres, inProduction).NewQueue()
			joinAtOnce(c, typeID, waiting)
			options, err := redis.ParseURL(c.RedisServer.URL)
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
				require.NoError(b, joinAndCall(c, typeID, resourceID))
			}
			b.StopTimer()
			b.ReportMetric((scripts()-before)/float64(2*b.N), "scripts/change")
		})
	}
}

// BenchmarkStart measures the time from the start of a node in an empty folder to its first
// answer.
func BenchmarkStart(b *testing.B) {
	for range b.N {
		h := nodetest.Start(b, nodetest.Embedded, inProduction, func(c *node.Config) { c.Data = b.TempDir() })
		require.NoError(b, succeeded(h.Try(nodetest.Request{Method: http.MethodGet, Path: "/readyz"})))
	}
}
