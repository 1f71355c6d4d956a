package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"bytes"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/models"
)

// unavailable requires a join and /readyz to be refused with 503, and reads to be
// answered.
func (c *clinic) unavailable(kind string) {
	c.t.Helper()
	joined := c.staff(http.MethodPut, "/management/scheduling/new", joining(kind, nil))
	for range 100 { // a full database may have some free pages
		if joined.status != http.StatusOK {
			break
		}
		joined = c.staff(http.MethodPut, "/management/scheduling/new", joining(kind, nil))
	}
	joined.later()
	down := c.send(request{method: http.MethodGet, path: "/readyz"}).later()
	assert.Equal(c.t, []string{"database"}, down.wrongFields())
	c.send(request{method: http.MethodGet, path: "/healthz"}).ok()
	c.staff(http.MethodGet, "/management/types", nil).ok()
}

// later requires a refusal that says when to come again.
func (a answer) later() answer {
	a.t.Helper()
	a.refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	assert.NotEmpty(a.t, a.header.Get("Retry-After"), a.of)
	return a
}

// recovers waits until the service works again by itself.
func (c *clinic) recovers(kind string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		return c.send(request{method: http.MethodGet, path: "/readyz"}).status == http.StatusOK
	}, patience, 20*time.Millisecond)
	c.staff(http.MethodPut, "/management/scheduling/new", joining(kind, nil)).ok()
}

func TestDatabaseThatTakesNoChangesIsUnavailable(t *testing.T) {
	t.Parallel()
	sqlite := func(refuse, allow string) func(*testing.T, *house) (stop, mend func()) {
		return func(t *testing.T, h *house) (stop, mend func()) {
			db, err := h.Store.SQL()
			require.NoError(t, err)
			exec := func(statement string) func() {
				return func() {
					_, err := db.ExecContext(t.Context(), statement)
					require.NoError(t, err)
				}
			}
			return exec(refuse), exec(allow)
		}
	}
	for name, one := range map[string]struct {
		backend backend
		fault   func(*testing.T, *house) (stop, mend func())
	}{
		"PostgreSQL is read-only": {postgres, readOnly},
		"SQLite is read-only":     {embedded, sqlite("PRAGMA query_only = 1", "PRAGMA query_only = 0")},
		"the disk is full":        {embedded, sqlite("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 4294967294")},
		"another process has locked SQLite": {embedded, func(t *testing.T, h *house) (stop, mend func()) {
			other, err := sql.Open("sqlite", filepath.Join(h.config.Data, "nowserving.db"))
			require.NoError(t, err)
			t.Cleanup(func() { assert.NoError(t, other.Close()) })
			conn, err := other.Conn(t.Context())
			require.NoError(t, err)
			exec := func(statement string) func() {
				return func() {
					_, err := conn.ExecContext(t.Context(), statement)
					require.NoError(t, err)
				}
			}
			exec("PRAGMA busy_timeout = 60000")()
			return exec("BEGIN IMMEDIATE"), exec("ROLLBACK")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, one.backend)
			c := h.newClinic()
			kind := c.serve(c.newType(nil))
			stop, mend := one.fault(t, h)
			stop()
			c.unavailable(kind)
			mend()
			c.recovers(kind)
		})
	}
}

// readOnly makes new connections to the database read-only and ends the others,
// as a failover does. Connections that were read-only stay so.
func readOnly(t *testing.T, h *house) (stop, mend func()) {
	address, err := url.Parse(storetest.Owner(t, store.Options{URL: h.config.DatabaseURL}).URL)
	require.NoError(t, err)
	name := address.Path[1:]
	address.Path = "/postgres"
	admin, err := sql.Open("pgx", address.String())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, admin.Close()) })
	exec := func(statement string, args ...any) {
		_, err := admin.ExecContext(t.Context(), statement, args...)
		require.NoError(t, err)
	}
	stop = func() {
		exec("ALTER DATABASE " + name + " SET default_transaction_read_only = on")
		exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
		require.Eventually(t, func() bool { // the pool has noticed which connections are gone
			err := h.Store.Writable(t.Context())
			return err != nil && strings.Contains(err.Error(), "25006") && h.Store.Ping(t.Context()) == nil
		}, patience, 20*time.Millisecond)
	}
	return stop, func() { exec("ALTER DATABASE " + name + " RESET default_transaction_read_only") }
}

// TestCommitWithUnknownOutcomeCanBeRepeated cuts the connection to PostgreSQL at
// the commit of a join, before and after the server gets it. The request can't
// say what became of it; repeated with its key, it is carried out once.
func TestCommitWithUnknownOutcomeCanBeRepeated(t *testing.T) {
	t.Parallel()
	for name, arrives := range map[string]bool{"the commit arrives": true, "the commit is lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var armed atomic.Bool
			h := newHouse(t, postgres, func(c *node.Config) {
				address, err := url.Parse(c.DatabaseURL)
				require.NoError(t, err)
				way := newRoad(t, address.Host, func(in, out net.Conn) { passUntilCommit(in, out, &armed, arrives) })
				address.Host = way.listener.Addr().String()
				c.DatabaseURL = address.String()
			})
			c := h.newClinic()
			kind := c.serve(c.newType(nil))
			join := func() answer {
				return h.send(request{
					method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(kind, nil),
					header: map[string]string{"Idempotency-Key": "once"},
				})
			}
			armed.Store(true)
			join().later()
			require.False(t, armed.Load(), "the connection was cut")
			var again answer
			require.Eventually(t, func() bool {
				again = join()
				return again.status == http.StatusOK || again.str("code") == string(models.CodeAnswerLost)
			}, patience, 20*time.Millisecond)
			ids := scalar[string](h, "SELECT string_agg(id, ' ') FROM bookings WHERE organization_id = ?", c.id)
			if arrives {
				again.refused(http.StatusConflict, models.CodeAnswerLost)
				assert.Contains(t, again.str("detail"), fmt.Sprintf(" %s,", ids), "the one booking is named")
			} else {
				assert.Equal(t, ids, again.ok().str("id"), "there is one booking")
			}
		})
	}
}

// passUntilCommit copies what the service sends to PostgreSQL. Once armed, it
// cuts the connection at the commit of a transaction that makes a booking, which
// the server gets or does not.
func passUntilCommit(in, out net.Conn, armed *atomic.Bool, arrives bool) {
	buffer := make([]byte, 64<<10)
	books := false
	for {
		n, err := in.Read(buffer)
		if err != nil {
			return
		}
		sent := buffer[:n]
		books = books || bytes.Contains(sent, []byte(`INSERT INTO "bookings"`))
		if bytes.Contains(sent, []byte("commit\x00")) {
			if books && armed.CompareAndSwap(true, false) {
				if arrives {
					_, _ = out.Write(sent)
				}
				return
			}
			books = false
		}
		if _, err := out.Write(sent); err != nil {
			return
		}
	}
}
