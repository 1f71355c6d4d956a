package handlers_test

import (
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
	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// unavailable requires a join and /readyz to be refused with 503, and reads to be
// answered.
func unavailable(c *nodetest.Clinic, kind string) {
	c.T.Helper()
	joined := c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nil))
	for range 100 { // a full database may have some free pages
		if joined.Status != http.StatusOK {
			break
		}
		joined = c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nil))
	}
	later(joined)
	down := later(c.Send(nodetest.Request{Method: http.MethodGet, Path: "/readyz"}))
	assert.Equal(c.T, []string{"database"}, down.WrongFields())
	c.Send(nodetest.Request{Method: http.MethodGet, Path: "/healthz"}).OK()
	c.Staff(http.MethodGet, "/management/types", nil).OK()
}

// later requires a refusal that says when to come again.
func later(a nodetest.Response) nodetest.Response {
	a.T.Helper()
	a.Refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	assert.NotEmpty(a.T, a.Header.Get("Retry-After"), a.Of)
	return a
}

// recovers waits until the service works again by itself.
func recovers(c *nodetest.Clinic, kind string) {
	c.T.Helper()
	require.Eventually(c.T, func() bool {
		return c.Send(nodetest.Request{Method: http.MethodGet, Path: "/readyz"}).Status == http.StatusOK
	}, nodetest.Patience, 20*time.Millisecond)
	c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nil)).OK()
}

func TestDatabaseThatTakesNoChangesIsUnavailable(t *testing.T) {
	t.Parallel()
	sqlite := func(refuse, allow string) func(*testing.T, *nodetest.Node) (stop, mend func()) {
		return func(t *testing.T, h *nodetest.Node) (stop, mend func()) {
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
		backend nodetest.Backend
		fault   func(*testing.T, *nodetest.Node) (stop, mend func())
	}{
		"PostgreSQL is read-only": {nodetest.Postgres, readOnly},
		"SQLite is read-only":     {nodetest.Embedded, sqlite("PRAGMA query_only = 1", "PRAGMA query_only = 0")},
		"the disk is full":        {nodetest.Embedded, sqlite("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 4294967294")},
		"another process has locked SQLite": {nodetest.Embedded, func(t *testing.T, h *nodetest.Node) (stop, mend func()) {
			other, err := sql.Open("sqlite", filepath.Join(h.Config.Data, "nowserving.db"))
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
			h := nodetest.Start(t, one.backend)
			c := h.NewClinic()
			kind := c.Serve(c.NewType(nil))
			stop, mend := one.fault(t, h)
			stop()
			unavailable(c, kind)
			mend()
			recovers(c, kind)
		})
	}
}

// readOnly makes new connections to the database read-only and ends the others,
// as a failover does. Connections that were read-only stay so.
func readOnly(t *testing.T, h *nodetest.Node) (stop, mend func()) {
	address, err := url.Parse(storetest.Owner(t, store.Options{URL: h.Config.DatabaseURL}).URL)
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
		}, nodetest.Patience, 20*time.Millisecond)
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
			h := nodetest.Start(t, nodetest.Postgres, func(c *node.Config) {
				address, err := url.Parse(c.DatabaseURL)
				require.NoError(t, err)
				way := newRoad(t, address.Host, func(in, out net.Conn) { passUntilCommit(in, out, &armed, arrives) })
				address.Host = way.listener.Addr().String()
				c.DatabaseURL = address.String()
			})
			c := h.NewClinic()
			kind := c.Serve(c.NewType(nil))
			join := func() nodetest.Response {
				return h.Send(nodetest.Request{
					Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Joining(kind, nil),
					Header: map[string]string{"Idempotency-Key": "once"},
				})
			}
			armed.Store(true)
			later(join())
			require.False(t, armed.Load(), "the connection was cut")
			var again nodetest.Response
			require.Eventually(t, func() bool {
				again = join()
				return again.Status == http.StatusOK || again.Str("code") == string(models.CodeAnswerLost)
			}, nodetest.Patience, 20*time.Millisecond)
			ids := nodetest.Scalar[string](h, "SELECT string_agg(id, ' ') FROM bookings WHERE organization_id = ?", c.ID)
			if arrives {
				again.Refused(http.StatusConflict, models.CodeAnswerLost)
				assert.Contains(t, again.Str("detail"), fmt.Sprintf(" %s,", ids), "the one booking is named")
			} else {
				assert.Equal(t, ids, again.OK().Str("id"), "there is one booking")
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
