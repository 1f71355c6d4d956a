package booking_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"nowserving/booking"
	"nowserving/booking/catalog"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	service "nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestMain(m *testing.M) { nodetest.Main(m) }

const patience = nodetest.Patience

// node is one running process of the service, without its HTTP side.
type node struct {
	store    *store.Store
	catalog  *catalog.Catalog
	mirrors  *queue.Mirrors
	index    *queue.Index
	bookings *booking.Service
}

// cluster is a database and a Redis, and the nodes that share them.
type cluster struct {
	t        testing.TB
	backend  nodetest.Backend
	redisURL string                 // of another kind of Redis; empty: a server of its own
	redis    *storetest.RedisServer // once there is a node; nil: inside the process
	first    *nodetest.Node
}

// onBothBackends runs a test on SQLite with the in-process Redis and on
// PostgreSQL with a real one.
func onBothBackends(t *testing.T, test func(t *testing.T, h *cluster)) {
	for _, b := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			test(t, &cluster{t: t, backend: b})
		})
	}
}

func onPostgres(t testing.TB) *cluster { return &cluster{t: t, backend: nodetest.Postgres} }

// node starts one; it stops with the test.
func (h *cluster) node() *node {
	h.t.Helper()
	n := h.first
	if n == nil {
		n = nodetest.Start(h.t, h.backend, func(c *service.Config) {
			if h.redisURL != "" {
				c.RedisURL = h.redisURL
			}
		})
		h.first, h.redis = n, n.RedisServer
	} else {
		n = n.Beside(nil)
	}
	return &node{n.Store, n.Catalog, n.Mirrors, n.Index, n.Bookings}
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
