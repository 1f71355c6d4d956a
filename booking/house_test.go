package booking_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nowserving/booking"
	"nowserving/booking/catalog"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what is to come; it only ever ends for
// what does not.
const patience = time.Minute

// node is one running process of the service, without its HTTP side.
type node struct {
	store    *store.Store
	catalog  *catalog.Catalog
	mirrors  *queue.Mirrors
	index    *queue.Index
	bookings *booking.Service
}

// house is where nodes live: a database and a Redis.
type house struct {
	t     testing.TB
	db    store.Options
	redis *storetest.RedisServer // nil: inside the process
}

// onBothBackends runs a test on SQLite with the in-process Redis and on
// PostgreSQL with a real one.
func onBothBackends(t *testing.T, test func(t *testing.T, h *house)) {
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		test(t, &house{t: t, db: storetest.Migrated(t, false)})
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, realHouse(t))
	})
}

func realHouse(t testing.TB) *house {
	return &house{
		t: t, redis: storetest.Redis(t),
		db: storetest.Migrated(t, true),
	}
}

// node starts one; it stops with the test. sweep says whether it looks after
// deadlines.
func (h *house) node(sweep bool) *node {
	ctx, cancel := context.WithCancel(h.t.Context())
	s, err := store.Open(ctx, h.db)
	require.NoError(h.t, err)
	_, err = s.Prepare(ctx)
	require.NoError(h.t, err)
	url := ""
	if h.redis != nil {
		url = h.redis.URL
	}
	rdb, closeRedis, err := store.OpenRedis(url)
	require.NoError(h.t, err)
	index := queue.NewIndex(rdb, booking.NewSource(s), slog.Default())
	mirrors := queue.NewMirrors(index, time.Now, slog.Default())
	c := catalog.New(s)
	c.OnChange(func(ctx context.Context, organizationID string) {
		assert.NoError(h.t, index.Rematch(ctx, organizationID))
	})
	n := &node{s, c, mirrors, index, booking.New(s, c, index, mirrors, slog.Default())}
	var running sync.WaitGroup
	running.Go(func() { mirrors.Run(ctx) })
	if sweep {
		running.Go(func() { n.bookings.Sweep(ctx) })
	}
	require.Eventually(h.t, mirrors.Linked, patience, time.Millisecond)
	h.t.Cleanup(func() {
		cancel()
		running.Wait()
		require.NoError(h.t, closeRedis())
		require.NoError(h.t, s.Close())
	})
	return n
}

// clinic is a seeded organization.
type clinic struct {
	*node
	t        testing.TB
	id       string
	customer string
}

func (n *node) clinic(t testing.TB) *clinic {
	o := &models.Organization{Name: "Clinic", Timezone: "Asia/Riyadh"}
	require.NoError(t, n.catalog.CreateOrganization(t.Context(), o))
	c := &clinic{n, t, o.ID, models.NewID()}
	c.exec("INSERT INTO customers (id, organization_id, created_at, updated_at) VALUES (?, ?, ?, ?)", c.customer, c.id, time.Now().UTC(), time.Now().UTC())
	return c
}

// exec changes the database behind the service's back.
func (c *clinic) exec(sql string, args ...any) {
	c.t.Helper()
	require.NoError(c.t, c.store.Tx(c.t.Context(), func(tx *store.Tx) error { return tx.Exec(sql, args...).Error }))
}

func (c *clinic) newType(minutes int) *models.BookingType {
	c.t.Helper()
	t := &models.BookingType{OrganizationID: c.id, Name: "Type", Minutes: minutes, On: true}
	require.NoError(c.t, c.catalog.CreateType(c.t.Context(), t))
	return t
}

func (c *clinic) newResource(types ...*models.BookingType) *models.Resource {
	c.t.Helper()
	r, err := c.catalog.CreateResource(c.t.Context(), c.id, func(_ *store.Tx, r *models.Resource) error {
		r.Name = "Room"
		for _, t := range types {
			r.TypeIDs = append(r.TypeIDs, t.ID)
		}
		return nil
	})
	require.NoError(c.t, err)
	return r
}

func (c *clinic) scope() booking.Scope { return booking.Scope{OrganizationID: c.id} }

func (c *clinic) join(t *models.BookingType) *models.Booking {
	c.t.Helper()
	b, _, err := c.bookings.Join(c.t.Context(), c.id, booking.Join{CustomerID: c.customer, TypeID: t.ID})
	require.NoError(c.t, err)
	return b
}

// position is what a reader is told now; 0 when the booking does not wait.
func (c *clinic) position(id string) int {
	b, err := c.bookings.Get(context.WithoutCancel(c.t.Context()), c.id, id)
	if err != nil {
		return -1
	}
	places, err := c.bookings.Places(context.WithoutCancel(c.t.Context()), c.id, []models.Booking{*b})
	if err != nil {
		return -1
	}
	return places[id].Position
}

// mirrored is what the node's mirror says, with no help from the database; -1
// while it does not know all that the index holds.
func (c *clinic) mirrored(id string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	m, ok := c.mirrors.Current(ctx, c.id)
	if !ok {
		return -1
	}
	position, _ := m.Position(id)
	return position
}
