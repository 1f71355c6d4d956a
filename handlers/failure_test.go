package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

func TestUnknownFailureShowsItsIDOnly(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		h.alter("DROP TABLE displays")
		a := c.staff(http.MethodGet, "/management/displays", nil).refused(http.StatusInternalServerError, models.CodeInternal)
		assert.NotContains(t, string(a.raw), "displays")
		assert.Contains(t, h.logged.String(), a.str("requestId"))
		assert.Contains(t, h.logged.String(), "displays")
	})
}

func TestPanicIsAnswered(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	h.Handlers.ServeNothing()
	a := h.send(request{method: http.MethodGet, path: "/nothing/panic"}).refused(http.StatusInternalServerError, models.CodeInternal)
	assert.NotContains(t, string(a.raw), "secret cause")
	assert.Contains(t, h.logged.String(), "a secret cause")
	h.send(request{method: http.MethodGet, path: "/nothing/bare"}).ok()
}

// road is a way to a server that can be cut.
type road struct {
	t        *testing.T
	listener net.Listener
	target   string
	pass     func(in, out net.Conn) // copies what comes to the server

	mu    sync.Mutex
	conns []net.Conn
	cut   bool
	wg    sync.WaitGroup
}

// newRoad makes a way to target. pass, unless nil, copies what comes to the server.
func newRoad(t *testing.T, target string, pass func(in, out net.Conn)) *road {
	t.Helper()
	if pass == nil {
		pass = func(in, out net.Conn) { _, _ = io.Copy(out, in) }
	}
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &road{t: t, listener: listener, target: target, pass: pass}
	r.wg.Go(r.run)
	t.Cleanup(func() {
		assert.NoError(t, listener.Close())
		r.setCut(true)
		r.wg.Wait()
	})
	return r
}

func (r *road) run() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.target)
		r.mu.Lock()
		if err != nil || r.cut {
			r.hangUp(in)
			if err == nil {
				r.hangUp(out)
			}
			r.mu.Unlock()
			continue
		}
		r.conns = append(r.conns, in, out)
		r.mu.Unlock()
		r.wg.Go(func() {
			r.pass(in, out)
			r.hangUp(in)
			r.hangUp(out)
		})
		r.wg.Go(func() {
			_, _ = io.Copy(in, out)
			r.hangUp(in)
			r.hangUp(out)
		})
	}
}

// hangUp closes a connection, which the other direction may have done already.
func (r *road) hangUp(c net.Conn) {
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		assert.NoError(r.t, err)
	}
}

// setCut cuts the road, or mends it for those who come anew.
func (r *road) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	if cut {
		for _, c := range r.conns {
			r.hangUp(c)
		}
		r.conns = nil
	}
}

func TestWithoutDatabaseTheServiceSaysSo(t *testing.T) {
	t.Parallel()
	var way *road
	h := newHouse(t, postgres, allowPrivate, func(c *node.Config) {
		address, err := url.Parse(c.DatabaseURL)
		require.NoError(t, err)
		way = newRoad(t, address.Host, nil)
		address.Host = way.listener.Addr().String()
		c.DatabaseURL = address.String()
	})
	c := h.newClinic()
	kind := c.serve(c.newType(nil))
	r := newReceiver(t, nil)
	c.hook("bookingUnassigned", r.url, nil)
	way.setCut(true)
	c.staff(http.MethodPut, "/management/scheduling/new", joining(kind, nil)).refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	c.staff(http.MethodGet, "/management/types", nil).refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	down := h.send(request{method: http.MethodGet, path: "/readyz"}).refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	assert.Equal(t, []string{"database"}, down.wrongFields())
	h.send(request{method: http.MethodGet, path: "/healthz"}).ok()
	way.setCut(false)
	require.Eventually(t, func() bool {
		return c.staff(http.MethodPut, "/management/scheduling/new", joining(kind, nil)).status == http.StatusOK
	}, patience, 20*time.Millisecond)
	r.await(1) // and who is outside is told
}
