package handlers_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

// afterCommit fails everything a request asks of the database once its first
// transaction that writes has ended.
type afterCommit struct {
	mu     sync.Mutex
	wrote  *sql.Tx
	failed int
}

type afterCommitKey struct{}

var errAfterCommit = errors.New("the database is away after the commit")

// before is a GORM callback that comes first.
func (a *afterCommit) before(db *gorm.DB, writes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tx, _ := db.Statement.ConnPool.(*sql.Tx)
	switch {
	case a.wrote != nil && tx != a.wrote:
		a.failed++
		_ = db.AddError(errAfterCommit)
	case writes && tx != nil:
		a.wrote = tx
	}
}

// failAfterCommit lets requests with an afterCommit in their context meet it.
func failAfterCommit(t *testing.T, h *house) {
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
		require.NoError(t, errors.Join(
			db.Callback().Query().Before("*").Register(name, hook(false)), db.Callback().Row().Before("*").Register(name, hook(false)),
			db.Callback().Raw().Before("*").Register(name, hook(true)), db.Callback().Create().Before("*").Register(name, hook(true)),
			db.Callback().Update().Before("*").Register(name, hook(true)), db.Callback().Delete().Before("*").Register(name, hook(true)),
		))
	}
	register(h.store.Read(t.Context()))
	require.NoError(t, h.store.Tx(t.Context(), func(tx *store.Tx) error { register(tx.DB); return nil }))
}

// again makes the world's bookings what they were, so that every operation on
// them succeeds.
func (w *world) again(bookings []models.Booking) {
	w.t.Helper()
	require.NoError(w.t, w.store.Tx(context.Background(), func(tx *store.Tx) error {
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

// TestWhatIsCommittedIsAnswered sends every request that changes something while
// the database fails right after the commit. The change stands, so the answer is
// success.
func TestWhatIsCommittedIsAnswered(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(receiver.Close)
		w := h.newWorld("Zanzibar", "966555111", receiver.URL)
		failAfterCommit(t, h)
		var bookings []models.Booking
		ids := []string{w.ids["booking"], w.ids["called"], w.ids["held"], w.ids["waiting"]}
		require.NoError(t, h.store.Read(t.Context()).Where("id IN ?", ids).Find(&bookings).Error)
		for i := range bookings {
			if at := bookings[i].LastCalledAt; at != nil { // long enough ago for a recall
				*at = at.Add(-2 * models.RecallPause)
			}
		}
		met := map[string]int{}
		for _, d := range doors {
			method, path, _ := strings.Cut(d.route, " ")
			if method != http.MethodPost && method != http.MethodPut || strings.HasPrefix(path, "/auth/") {
				continue
			}
			w.again(bookings)
			r := w.ask(d, true)
			for _, who := range callerNames {
				if d.who&who.who != 0 {
					r.token, r.app = w.tokens[who.who], w.id
					break
				}
			}
			fault := &afterCommit{}
			front := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
				h.server.ServeHTTP(res, req.WithContext(context.WithValue(req.Context(), afterCommitKey{}, fault)))
			}))
			there := *h
			there.url = front.URL
			a := there.send(r)
			front.Close()
			assert.Equal(t, http.StatusOK, a.status, "%s: %s", d.route, a.raw)
			met[d.route] = fault.failed
		}
		for _, route := range []string{"PUT /management/scheduling/new", "POST /management/bookings/assign", "POST /management/queue/next"} {
			assert.NotZero(t, met[route], "%s reads nothing after its commit", route)
		}
	})
}
