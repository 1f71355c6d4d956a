package handlers_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// afterCommit fails everything a request asks of the database after its first
// commit.
type afterCommit struct {
	// keyed says that the request has an idempotency key, so its first commit is
	// the claim and not the change.
	keyed bool

	mu     sync.Mutex
	claim  *sql.Tx
	wrote  *sql.Tx
	failed int
	// end, if set, ends the request instead.
	end context.CancelFunc
}

type afterCommitKey struct{}

// before is a GORM callback that comes first. A context that has ended fails the
// statement as a database would that is away.
func (a *afterCommit) before(db *gorm.DB, writes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tx, _ := db.Statement.ConnPool.(*sql.Tx)
	switch {
	case a.wrote != nil && tx != a.wrote:
		a.failed++
		if a.end != nil {
			a.end()
			return
		}
		ended, end := context.WithCancel(db.Statement.Context)
		end()
		db.Statement.Context = ended
	case writes && tx != nil && a.keyed && a.claim == nil:
		a.claim = tx
	case writes && tx != nil && tx != a.claim:
		a.wrote = tx
	}
}

// failAfterCommit lets requests with an afterCommit in their context meet it.
func failAfterCommit(c *node.Config) {
	hook := func(writes bool) func(*gorm.DB) {
		return func(db *gorm.DB) {
			if a, ok := db.Statement.Context.Value(afterCommitKey{}).(*afterCommit); ok {
				a.before(db, writes)
			}
		}
	}
	seen := map[*gorm.Config]bool{}
	register := func(db *gorm.DB) {
		if seen[db.Config] {
			return
		}
		seen[db.Config] = true
		const name = "test:after_commit"
		must(errors.Join(
			db.Callback().Query().Before("*").Register(name, hook(false)), db.Callback().Row().Before("*").Register(name, hook(false)),
			db.Callback().Raw().Before("*").Register(name, hook(true)), db.Callback().Create().Before("*").Register(name, hook(true)),
			db.Callback().Update().Before("*").Register(name, hook(true)), db.Callback().Delete().Before("*").Register(name, hook(true)),
		))
	}
	// Before anything else uses the store: GORM's callbacks have no lock.
	c.Adjust.Store = func(s *store.Store) {
		register(s.Read(context.Background()))
		must(s.Tx(context.Background(), func(tx *store.Tx) error { register(tx.DB); return nil }))
	}
}

// again makes the world's bookings what they were, so that every operation on
// them succeeds.
func (w *world) again(bookings []models.Booking) {
	w.T.Helper()
	require.NoError(w.T, w.Store.Tx(context.Background(), func(tx *store.Tx) error {
		for _, b := range bookings {
			if err := tx.Raw("SELECT version + 1 FROM bookings WHERE id = ?", b.ID).Scan(&b.Version).Error; err != nil {
				return err
			}
			if err := tx.Save(&b).Error; err != nil {
				return err
			}
		}
		return nil
	}))
}

// through sends a request whose context change has changed.
func through(h *nodetest.Node, r nodetest.Request, change func(context.Context) context.Context) nodetest.Response {
	h.T.Helper()
	front := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		h.Handlers.ServeHTTP(res, req.WithContext(change(req.Context())))
	}))
	defer front.Close()
	there := &nodetest.Node{Node: &node.Node{URL: front.URL, API: h.API}, T: h.T, Client: h.Client, Visited: map[string]bool{}}
	return there.Send(r)
}

// changing are the permissions of requests that change something: DELETE comes last, and
// the organization last of all.
func changing() []permission {
	kinds := make([][]permission, 3)
	for _, p := range permissions {
		method, path, _ := strings.Cut(p.route, " ")
		switch {
		case path == "/auth/setup", // only before the first key
			method == http.MethodDelete && p.whose == own && path == "/customer/profile",
			method == http.MethodDelete && strings.HasPrefix(path, "/management/customers/"):
			// To erase a customer takes several changes. A request that fails between
			// them is repeated.
		case p.route == "DELETE /management/organizations/:id":
			kinds[2] = append(kinds[2], p)
		case method == http.MethodDelete:
			kinds[1] = append(kinds[1], p)
		case method != "ANY" && (method != http.MethodGet || path == "/auth/token"):
			kinds[0] = append(kinds[0], p)
		}
	}
	return slices.Concat(kinds...)
}

// TestACommittedChangeIsAnsweredWithSuccess sends every request that changes
// something while the database fails right after the commit. The change stands, so
// the answer is success.
func TestACommittedChangeIsAnsweredWithSuccess(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, func(c *node.Config) { nodetest.AllowPrivate(c); failAfterCommit(c) }, func(t *testing.T, h *nodetest.Node) {
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(receiver.Close)
		w := newWorld(h, "Zanzibar", "966555111", receiver.URL)
		w.ids["mine"] = h.Send(nodetest.Request{
			Method: http.MethodPut, Path: "/customer/scheduling/new", Token: w.tokens[asCustomer], Body: nodetest.Joining(w.ids["type"], nil),
		}).OK().Str("result.id")
		var bookings []models.Booking
		ids := []string{w.ids["booking"], w.ids["called"], w.ids["held"], w.ids["waiting"], w.ids["mine"]}
		require.NoError(t, h.Store.Read(t.Context()).Where("id IN ?", ids).Find(&bookings).Error)
		for i := range bookings {
			if at := bookings[i].LastCalledAt; at != nil { // long enough ago for a recall
				*at = at.Add(-2 * models.RecallPause)
			}
		}
		refresh := func(n string) string { return w.SignIn("+966555111"+n, false).Str("refreshToken") }
		newcomer := `"method":"sms","phoneNumber":"+966555111300","isOrgMember":false`
		bodies := map[string]string{
			"POST /auth/otp/request":         "{" + newcomer + "}",
			"POST /auth/otp/verify":          "{" + newcomer + `,"code":"` + nodetest.FixedCode + `"}`,
			"POST /auth/token":               `{"refreshToken":"` + refresh("301") + `"}`,
			"POST /auth/logout":              `{"refreshToken":"` + refresh("302") + `"}`,
			"POST /customer/bookings/cancel": `{"bookingId":"` + w.ids["mine"] + `"}`,
		}
		met := map[string]int{}
		for _, p := range changing() {
			w.again(bookings)
			r := w.ask(p, true)
			if body, ok := bodies[p.route]; ok {
				r.Body = body
			}
			if p.route == "GET /auth/token" {
				r.Path += "?refreshToken=" + refresh("303")
			}
			for _, who := range callerNames {
				if p.who&who.who != 0 && p.who != everyone {
					r.Token = w.tokens[who.who]
					break
				}
			}
			r.App = w.ID
			fault := &afterCommit{}
			a := through(h, r, func(ctx context.Context) context.Context { return context.WithValue(ctx, afterCommitKey{}, fault) })
			assert.Equal(t, http.StatusOK, a.Status, "%s: %s", p.route, a.Raw)
			met[p.route] = fault.failed
		}
		for _, route := range []string{"PUT /management/scheduling/new", "POST /management/bookings/assign", "POST /management/queue/next"} {
			assert.NotZero(t, met[route], "%s reads nothing after its commit", route)
		}
	})
}

// TestADeadlineAfterTheCommitIsAnsweredWithSuccess ends a request right after its
// commit. The change stands, so the answer is success, and it is kept with the
// idempotency key.
func TestADeadlineAfterTheCommitIsAnsweredWithSuccess(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, failAfterCommit, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		for _, r := range []nodetest.Request{
			{Method: http.MethodPut, Path: "/management/scheduling/new", Body: nodetest.Joining(kind, nil)},
			{Method: http.MethodPost, Path: "/management/bookings/assign", Body: nodetest.Object{"bookingId": c.Join(kind, nil).Str("id"), "resourceId": room}},
			{Method: http.MethodPost, Path: "/management/queue/next", Body: nodetest.Object{"resourceId": room}},
		} {
			r.Token, r.Header = c.Key, map[string]string{"Idempotency-Key": r.Path}
			fault := &afterCommit{keyed: true}
			first := through(h, r, func(ctx context.Context) context.Context {
				ctx, fault.end = context.WithCancel(ctx)
				return context.WithValue(ctx, afterCommitKey{}, fault)
			}).OK()
			assert.NotZero(t, fault.failed, "%s reads nothing after its commit", r.Path)
			fault.end()
			again := h.Send(r).OK()
			assert.Equal(t, "true", again.Header.Get("Idempotency-Replayed"), r.Path)
			assert.Equal(t, first.Body, again.Body, r.Path)
		}
	})
}

// TestACommitUnderWayOutlivesTheDeadline ends a request while its commit is under
// way: the commit finishes, and the answer says so.
func TestACommitUnderWayOutlivesTheDeadline(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Postgres)
	c := h.NewClinic()
	kind := c.NewType(nil)
	room := c.NewResource(nil, kind)
	c.Join(kind, nil)
	// A deferred trigger makes the commit wait for a lock.
	const gate = "hashtext(current_database())"
	h.Alter(`CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM pg_advisory_xact_lock_shared(` + gate + `); RETURN NULL; END $$`)
	h.Alter(`CREATE CONSTRAINT TRIGGER wait_at_gate AFTER UPDATE ON bookings DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION wait_at_gate()`)
	held, release := make(chan struct{}), make(chan struct{})
	var gatekeeper sync.WaitGroup
	gatekeeper.Go(func() {
		assert.NoError(t, h.Store.Tx(context.Background(), func(tx *store.Tx) error {
			err := tx.Exec("SELECT pg_advisory_xact_lock(" + gate + ")").Error
			close(held)
			<-release
			return err
		}))
	})
	<-held
	answered := make(chan nodetest.Response, 1)
	ends := make(chan context.CancelFunc, 1)
	r := nodetest.Request{Method: http.MethodPost, Path: "/management/queue/next", Token: c.Key, Body: nodetest.Object{"resourceId": room}}
	go func() {
		answered <- through(h, r, func(ctx context.Context) context.Context {
			ctx, end := context.WithCancel(ctx)
			ends <- end
			return ctx
		})
	}()
	end := <-ends
	committing := assert.Eventually(t, func() bool {
		return nodetest.Scalar[int](h, `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
			WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted`) > 0
	}, nodetest.Patience, time.Millisecond)
	end()
	close(release)
	gatekeeper.Wait()
	a := <-answered
	if committing {
		a.OK()
	}
	assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE resource_id = ?", room))
}
