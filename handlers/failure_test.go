package handlers_test

import (
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

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestUnknownFailureShowsItsIDOnly(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		h.Alter("DROP TABLE displays")
		a := c.Staff(http.MethodGet, "/management/displays", nil).Refused(http.StatusInternalServerError, models.CodeInternal)
		assert.NotContains(t, string(a.Raw), "displays")
		assert.Contains(t, h.Log.String(), a.Str("requestId"))
		assert.Contains(t, h.Log.String(), "displays")
	})
}

func TestPanicIsAnswered(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	h.Handlers.ServeNothing()
	a := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/nothing/panic"}).Refused(http.StatusInternalServerError, models.CodeInternal)
	assert.NotContains(t, string(a.Raw), "secret cause")
	assert.Contains(t, h.Log.String(), "a secret cause")
	h.Send(nodetest.Request{Method: http.MethodGet, Path: "/nothing/bare"}).OK()
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

func TestWithoutDatabaseTheServiceIsUnavailable(t *testing.T) {
	t.Parallel()
	var way *road
	h := nodetest.Start(t, nodetest.Postgres, nodetest.AllowPrivate, func(c *node.Config) {
		address, err := url.Parse(c.DatabaseURL)
		require.NoError(t, err)
		way = newRoad(t, address.Host, nil)
		address.Host = way.listener.Addr().String()
		c.DatabaseURL = address.String()
	})
	c := h.NewClinic()
	kind := c.Serve(c.NewType(nil))
	r := nodetest.NewReceiver(t, nil)
	c.Hook("bookingUnassigned", r.URL, nil)
	way.setCut(true)
	c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nil)).Refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	c.Staff(http.MethodGet, "/management/types", nil).Refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	down := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/readyz"}).Refused(http.StatusServiceUnavailable, models.CodeUnavailable)
	assert.Equal(t, []string{"database"}, down.WrongFields())
	h.Send(nodetest.Request{Method: http.MethodGet, Path: "/healthz"}).OK()
	way.setCut(false)
	require.Eventually(t, func() bool {
		return c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nil)).Status == http.StatusOK
	}, nodetest.Patience, 20*time.Millisecond)
	r.Await(1) // and who is outside is told
}
