package handlers_test

import (
	"nowserving/cmd/nowserving/node"

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
	w.t.Helper()
	require.NoError(w.t, w.Store.Tx(context.Background(), func(tx *store.Tx) error {
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
func (h *house) through(r request, change func(context.Context) context.Context) answer {
	h.t.Helper()
	front := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		h.Handlers.ServeHTTP(res, req.WithContext(change(req.Context())))
	}))
	defer front.Close()
	there := &house{Node: &node.Node{URL: front.URL, Handlers: h.Handlers}, t: h.t, client: h.client, visited: map[string]bool{}}
	return there.send(r)
}

// changing are the doors through which something changes: DELETE comes last, and
// the organization last of all.
func changing() []door {
	kinds := make([][]door, 3)
	for _, d := range doors {
		method, path, _ := strings.Cut(d.route, " ")
		switch {
		case path == "/auth/setup", // only before the first key
			method == http.MethodDelete && d.whose == own && path == "/customer/profile",
			method == http.MethodDelete && strings.HasPrefix(path, "/management/customers/"):
			// To erase a customer takes several changes. A request that fails between
			// them is repeated.
		case d.route == "DELETE /management/organizations/:id":
			kinds[2] = append(kinds[2], d)
		case method == http.MethodDelete:
			kinds[1] = append(kinds[1], d)
		case method != "ANY" && (method != http.MethodGet || path == "/auth/token"):
			kinds[0] = append(kinds[0], d)
		}
	}
	return slices.Concat(kinds...)
}

// TestWhatIsCommittedIsAnswered sends every request that changes something while
// the database fails right after the commit. The change stands, so the answer is
// success.
func TestWhatIsCommittedIsAnswered(t *testing.T) {
	t.Parallel()
	onBothWith(t, func(c *node.Config) { allowPrivate(c); failAfterCommit(c) }, func(t *testing.T, h *house) {
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(receiver.Close)
		w := h.newWorld("Zanzibar", "966555111", receiver.URL)
		w.ids["mine"] = h.send(request{
			method: http.MethodPut, path: "/customer/scheduling/new", token: w.tokens[asCustomer], body: joining(w.ids["type"], nil),
		}).ok().str("result.id")
		var bookings []models.Booking
		ids := []string{w.ids["booking"], w.ids["called"], w.ids["held"], w.ids["waiting"], w.ids["mine"]}
		require.NoError(t, h.Store.Read(t.Context()).Where("id IN ?", ids).Find(&bookings).Error)
		for i := range bookings {
			if at := bookings[i].LastCalledAt; at != nil { // long enough ago for a recall
				*at = at.Add(-2 * models.RecallPause)
			}
		}
		refresh := func(n string) string { return w.signIn("+966555111"+n, false).str("refreshToken") }
		newcomer := `"method":"sms","phoneNumber":"+966555111300","isOrgMember":false`
		bodies := map[string]string{
			"POST /auth/otp/request":         "{" + newcomer + "}",
			"POST /auth/otp/verify":          "{" + newcomer + `,"code":"` + fixedCode + `"}`,
			"POST /auth/token":               `{"refreshToken":"` + refresh("301") + `"}`,
			"POST /auth/logout":              `{"refreshToken":"` + refresh("302") + `"}`,
			"POST /customer/bookings/cancel": `{"bookingId":"` + w.ids["mine"] + `"}`,
		}
		met := map[string]int{}
		for _, d := range changing() {
			w.again(bookings)
			r := w.ask(d, true)
			if body, ok := bodies[d.route]; ok {
				r.body = body
			}
			if d.route == "GET /auth/token" {
				r.path += "?refreshToken=" + refresh("303")
			}
			for _, who := range callerNames {
				if d.who&who.who != 0 && d.who != everyone {
					r.token = w.tokens[who.who]
					break
				}
			}
			r.app = w.id
			fault := &afterCommit{}
			a := h.through(r, func(ctx context.Context) context.Context { return context.WithValue(ctx, afterCommitKey{}, fault) })
			assert.Equal(t, http.StatusOK, a.status, "%s: %s", d.route, a.raw)
			met[d.route] = fault.failed
		}
		for _, route := range []string{"PUT /management/scheduling/new", "POST /management/bookings/assign", "POST /management/queue/next"} {
			assert.NotZero(t, met[route], "%s reads nothing after its commit", route)
		}
	})
}

// TestDeadlineAfterCommit ends a request right after its commit. The change
// stands, so the answer is success, and it is kept with the idempotency key.
func TestDeadlineAfterCommit(t *testing.T) {
	t.Parallel()
	onBothWith(t, failAfterCommit, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		for _, r := range []request{
			{method: http.MethodPut, path: "/management/scheduling/new", body: joining(kind, nil)},
			{method: http.MethodPost, path: "/management/bookings/assign", body: object{"bookingId": c.join(kind, nil).str("id"), "resourceId": room}},
			{method: http.MethodPost, path: "/management/queue/next", body: object{"resourceId": room}},
		} {
			r.token, r.header = c.key, map[string]string{"Idempotency-Key": r.path}
			fault := &afterCommit{keyed: true}
			first := h.through(r, func(ctx context.Context) context.Context {
				ctx, fault.end = context.WithCancel(ctx)
				return context.WithValue(ctx, afterCommitKey{}, fault)
			}).ok()
			assert.NotZero(t, fault.failed, "%s reads nothing after its commit", r.path)
			fault.end()
			again := h.send(r).ok()
			assert.Equal(t, "true", again.header.Get("Idempotency-Replayed"), r.path)
			assert.Equal(t, first.body, again.body, r.path)
		}
	})
}

// TestDeadlineDuringCommit ends a request while its commit is under way: the
// commit finishes, and the answer says so.
func TestDeadlineDuringCommit(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgres)
	c := h.newClinic()
	kind := c.newType(nil)
	room := c.newResource(nil, kind)
	c.join(kind, nil)
	// A deferred trigger makes the commit wait for a lock.
	const gate = "hashtext(current_database())"
	h.alter(`CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN PERFORM pg_advisory_xact_lock_shared(` + gate + `); RETURN NULL; END $$`)
	h.alter(`CREATE CONSTRAINT TRIGGER wait_at_gate AFTER UPDATE ON bookings DEFERRABLE INITIALLY DEFERRED
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
	answered := make(chan answer, 1)
	ends := make(chan context.CancelFunc, 1)
	r := request{method: http.MethodPost, path: "/management/queue/next", token: c.key, body: object{"resourceId": room}}
	go func() {
		answered <- h.through(r, func(ctx context.Context) context.Context {
			ctx, end := context.WithCancel(ctx)
			ends <- end
			return ctx
		})
	}()
	end := <-ends
	committing := assert.Eventually(t, func() bool {
		return scalar[int](h, `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
			WHERE d.datname = current_database() AND l.locktype = 'advisory' AND NOT l.granted`) > 0
	}, patience, time.Millisecond)
	end()
	close(release)
	gatekeeper.Wait()
	a := <-answered
	if committing {
		a.ok()
	}
	assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM bookings WHERE resource_id = ?", room))
}
