// Package nodetest starts nodes for tests, on SQLite with the in-process Redis and on
// PostgreSQL with a Redis server, and speaks to them as clients do: over HTTP and the
// live protocol. It speaks in the same way to a node in another process (Remote). It has a clinic with the requests of its staff and patients, and
// servers that speak the formats of what lies outside: FCM, SMTP, Twilio, Unifonic and
// receivers of webhooks.
package nodetest

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node"
	"nowserving/handlers/api"
	"nowserving/notify"
	"nowserving/realtime"
	"nowserving/realtime/presence"
)

// Main runs the tests of a package and fails if goroutines are left.
func Main(m *testing.M) {
	gin.SetMode(gin.ReleaseMode) // it would print every route otherwise
	// The client library lets go of an answered command only after 5 seconds.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1"))
}

// Settings of every node.
const (
	BootstrapKey = "nsk_bootstrap_for_tests"
	FixedCode    = "246810"
	PublicURL    = "https://clinic.example"
	Friend       = "https://friend.example" // an origin that may call the API
)

// Patience is how long a test waits for an event before it fails.
const Patience = time.Minute

// Backend is what a node keeps its data in.
type Backend string

// The backends.
const (
	Embedded Backend = "embedded" // SQLite and the in-process Redis
	Postgres Backend = "postgres" // PostgreSQL and a Redis server
)

// Node is a running node with what a test needs to talk to it. A remote one has only its
// URL in the embedded node.Node.
type Node struct {
	*node.Node
	T           testing.TB
	Config      node.Config
	RedisServer *storetest.RedisServer // nil: in-process
	Client      *http.Client
	Log         *LogBook

	mu      sync.Mutex
	Visited map[string]bool // "GET /management/types/{id}": operations called with success
}

// Backends lists all backends.
var Backends = []Backend{Embedded, Postgres}

// OnEach runs a test for each backend, in parallel.
func OnEach(t *testing.T, test func(t *testing.T, b Backend)) {
	t.Helper()
	for _, b := range Backends {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

// OnBoth runs a test with a node on each backend.
func OnBoth(t *testing.T, test func(t *testing.T, h *Node), change ...func(*node.Config)) {
	t.Helper()
	OnEach(t, func(t *testing.T, b Backend) { test(t, Start(t, b, change...)) })
}

// Start starts a node on a database of its own. change changes its configuration. The
// node logs to Node.Log, unless change sets Config.Log. It stops with the test.
func Start(t testing.TB, b Backend, change ...func(*node.Config)) *Node {
	t.Helper()
	database := storetest.Migrated(t, b == Postgres)
	c, err := node.ReadConfig(nil)
	require.NoError(t, err)
	c.Addr, c.DatabaseURL, c.Data, c.SQLiteSync = "127.0.0.1:0", database.URL, database.DataDir, "normal"
	if c.Data == "" { // PostgreSQL; the folder has the uploaded files
		c.Data = t.TempDir()
	}
	c.PublicURL, c.AllowedOrigins, c.RateLimit = PublicURL+"/", []string{Friend}, 1_000_000
	c.SecretKey, c.BootstrapKey, c.OTPFixedCode = strings.Repeat("s", 32), BootstrapKey, FixedCode
	// The machine may be busy with other tests.
	c.Adjust = node.Adjust{
		API:      func(o *api.Options) { o.Timeout, o.CountTimeout = Patience, Patience },
		Access:   func(o *access.Options) { o.TrustedFor = Patience },
		Live:     func(o *realtime.Options) { o.SourceTimeout = Patience },
		Presence: func(p *presence.Connections) { p.Patience = Patience },
	}
	var server *storetest.RedisServer
	if b == Postgres {
		server = storetest.Redis(t)
		c.RedisURL = server.URL
	}
	for _, f := range change {
		f(&c)
	}
	return start(t, c, server)
}

// Beside starts another node on the same database and Redis. look, unless nil, gets
// the node's store before anything uses it.
func (h *Node) Beside(look func(*store.Store)) *Node {
	h.T.Helper()
	c := h.Config
	c.Adjust.Store = look
	return start(h.T, c, h.RedisServer)
}

// Remote returns a node that runs elsewhere, such as in another process. Requests, live
// connections and the requests of a clinic work. What reads the parts of a node or its
// database does not. Answers are not compared with the API document.
func Remote(t testing.TB, url string) *Node {
	h := &Node{Node: &node.Node{URL: url}, T: t, Log: &LogBook{}, Visited: map[string]bool{}}
	h.Client = &http.Client{Timeout: 2 * Patience, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	client := h.Client
	t.Cleanup(func() { client.CloseIdleConnections() })
	return h
}

func start(t testing.TB, c node.Config, server *storetest.RedisServer) *Node {
	t.Helper()
	h := Remote(t, "")
	h.Config, h.RedisServer = c, server
	if c.Log == nil {
		c.Log = slog.New(slog.NewJSONHandler(h.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	changed := c.Adjust.Notify
	c.Adjust.Notify = func(o *notify.Options) {
		o.Console = c.Console // not the standard output
		if changed != nil {
			changed(o)
		}
	}
	n, err := node.New(t.Context(), c)
	require.NoError(t, err)
	h.Node = n
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, n.Run(ctx)) })
	t.Cleanup(func() {
		h.Client.CloseIdleConnections() // the node waits for connections in use
		cancel()
		running.Wait()
		assert.NoError(t, n.Close())
		// The testing package keeps this function until all parallel tests have ended.
		// Without these lines it would keep every node of them.
		n, h.Node, h.Client = nil, nil, nil
		h.Log.all = bytes.Buffer{}
	})
	<-n.Serving()
	require.Eventually(t, n.Mirrors.Linked, Patience, time.Millisecond)
	return h
}

// LogBook keeps what was logged. It may be read while it is written.
type LogBook struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *LogBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *LogBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
