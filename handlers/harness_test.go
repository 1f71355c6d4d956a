package handlers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node"
	"nowserving/handlers/api"
	"nowserving/models"
	"nowserving/notify"
	"nowserving/realtime"
	"nowserving/realtime/presence"
)

func TestMain(m *testing.M) {
	// The client library lets go of an answered command only after 5 seconds.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1"))
}

const (
	bootstrapKey = "nsk_bootstrap_for_tests"
	fixedCode    = "246810"
	publicURL    = "https://clinic.example"
	friend       = "https://friend.example" // an origin that may call the API
)

// patience is how long a test waits for what is to come; it only ever ends for
// what does not.
const patience = time.Minute

// backend is what a node keeps its data in.
type backend string

const (
	embedded backend = "embedded" // SQLite and the in-process Redis
	postgres backend = "postgres" // PostgreSQL and a Redis server
)

// house is a node as it runs, with what a test needs to talk to it.
type house struct {
	*node.Node
	t      testing.TB
	config node.Config
	server *storetest.RedisServer // nil: in-process
	client *http.Client
	logged *logBook

	mu      sync.Mutex
	visited map[string]bool // "GET /management/types/{id}": operations called with success
}

// onBoth runs a test with a node on each backend.
func onBoth(t *testing.T, test func(t *testing.T, h *house), change ...func(*node.Config)) {
	t.Helper()
	for _, b := range []backend{embedded, postgres} {
		t.Run(string(b), func(t *testing.T) {
			t.Parallel()
			test(t, newHouse(t, b, change...))
		})
	}
}

// newHouse starts a node on a database of its own. change changes its configuration.
// The node stops with the test.
func newHouse(t testing.TB, b backend, change ...func(*node.Config)) *house {
	t.Helper()
	database := storetest.Migrated(t, b == postgres)
	c, err := node.ReadConfig(nil)
	require.NoError(t, err)
	c.Addr, c.DatabaseURL, c.Data, c.SQLiteSync = "127.0.0.1:0", database.URL, database.DataDir, "normal"
	c.PublicURL, c.AllowedOrigins, c.RateLimit = publicURL+"/", []string{friend}, 1_000_000
	c.SecretKey, c.BootstrapKey, c.OTPFixedCode = strings.Repeat("s", 32), bootstrapKey, fixedCode
	// The machine may be busy with other tests.
	c.Adjust = node.Adjust{
		API:      func(o *api.Options) { o.Timeout, o.CountTimeout = patience, patience },
		Access:   func(o *access.Options) { o.TrustedFor = patience },
		Live:     func(o *realtime.Options) { o.SourceTimeout = patience },
		Presence: func(p *presence.Connections) { p.Patience = patience },
	}
	var server *storetest.RedisServer
	if b == postgres {
		server = storetest.Redis(t)
		c.RedisURL = server.URL
	}
	for _, f := range change {
		f(&c)
	}
	return start(t, c, server)
}

// beside starts another node on the same database and Redis. look, if any, gets
// its store before anything uses it.
func (h *house) beside(look func(*store.Store)) *house {
	h.t.Helper()
	c := h.config
	c.Adjust.Store = look
	return start(h.t, c, h.server)
}

func start(t testing.TB, c node.Config, server *storetest.RedisServer) *house {
	t.Helper()
	h := &house{t: t, config: c, server: server, logged: &logBook{}, visited: map[string]bool{}}
	c.Log = slog.New(slog.NewJSONHandler(h.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
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
	h.client = &http.Client{Timeout: 2 * patience, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, n.Run(ctx)) })
	t.Cleanup(func() {
		h.client.CloseIdleConnections()
		cancel()
		running.Wait()
		assert.NoError(t, n.Close())
	})
	<-n.Serving()
	require.Eventually(t, n.Mirrors.Linked, patience, time.Millisecond)
	return h
}

// logBook keeps what was logged.
type logBook struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// exec changes the database behind the service's back.
func (h *house) exec(sql string, args ...any) {
	h.t.Helper()
	require.NoError(h.t, h.Store.Tx(context.Background(), func(tx *store.Tx) error { return tx.Exec(sql, args...).Error }))
}

// alter changes the schema, as its owner.
func (h *house) alter(sql string) {
	h.t.Helper()
	if !h.Store.Postgres() {
		h.exec(sql)
		return
	}
	owner, err := store.Open(context.Background(), storetest.Owner(h.t, store.Options{URL: h.config.DatabaseURL, Now: time.Now, Log: slog.Default()}))
	require.NoError(h.t, err)
	defer func() { require.NoError(h.t, owner.Close()) }()
	require.NoError(h.t, owner.Tx(context.Background(), func(tx *store.Tx) error { return tx.Exec(sql).Error }))
}

// scalar reads one value from the database.
func scalar[T any](h *house, sql string, args ...any) T {
	h.t.Helper()
	var value T
	require.NoError(h.t, h.Store.Read(context.Background()).Raw(sql, args...).Row().Scan(&value))
	return value
}

// tables are all that a request could change, but for the count of wrong codes.
var tables = []string{
	"organizations", "members", "customers", "booking_types", "resources", "resource_types", "ticket_counters", "bookings",
	"booking_filter_resources", "events", "displays", "api_keys", "webhooks", "one_time_codes", "sessions", "devices",
}

// contents is everything in the database, as text, but for the quoted waits and
// the use of keys: they are kept in the background, some time after.
func (h *house) contents() string {
	h.t.Helper()
	var all strings.Builder
	for _, table := range tables {
		var rows []map[string]any
		require.NoError(h.t, h.Store.Read(context.Background()).Table(table).Find(&rows).Error)
		lines := make([]string, len(rows))
		for i, row := range rows {
			maps.DeleteFunc(row, func(column string, _ any) bool {
				return strings.HasPrefix(column, "quoted_") || table == "api_keys" && slices.Contains([]string{"requests", "errors", "last_used_at"}, column)
			})
			lines[i] = fmt.Sprint(row) // maps print sorted
		}
		slices.Sort(lines) // the order of rows is nobody's promise
		fmt.Fprintf(&all, "%s %d %s\n", table, len(rows), strings.Join(lines, "\n"))
	}
	return all.String()
}

// request is one HTTP request to be.
type request struct {
	method, path string
	token        string // Authorization: Bearer
	app          string // X-APP-ID
	lang         string
	body         any // string and []byte go as they are, everything else as JSON
	header       map[string]string
	chunked      bool
}

// send makes a request and reads the answer, which has to be as the API document
// says.
func (h *house) send(r request) answer {
	h.t.Helper()
	a, err := h.try(r)
	require.NoError(h.t, err)
	h.keepsContract(r, a)
	return a
}

// try is send for other goroutines than the test's.
func (h *house) try(r request) (answer, error) {
	var body io.Reader
	switch b := r.body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	case []byte:
		body = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}
		body = bytes.NewReader(encoded)
	}
	if r.chunked {
		body = struct{ io.Reader }{body} // its length can't be seen
	}
	req, err := http.NewRequestWithContext(context.Background(), r.method, h.URL+r.path, body)
	if err != nil {
		return answer{}, err
	}
	for name, value := range map[string]string{"X-APP-ID": r.app, "lang": r.lang} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	res, err := h.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	raw, err := io.ReadAll(res.Body)
	if closing := res.Body.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return answer{}, err
	}
	a := answer{t: h.t, status: res.StatusCode, header: res.Header, raw: raw, of: r.method + " " + r.path}
	if len(raw) > 0 && strings.Contains(res.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &a.body); err != nil {
			return answer{}, fmt.Errorf("%s answered no JSON: %w", a.of, err)
		}
	}
	if res.StatusCode == http.StatusOK {
		h.mu.Lock()
		path, _, _ := strings.Cut(r.path, "?")
		h.visited[r.method+" "+path] = true
		h.mu.Unlock()
	}
	return a, nil
}

// answer is an HTTP answer.
type answer struct {
	t      testing.TB
	of     string
	status int
	header http.Header
	raw    []byte
	body   any
}

// ok requires success.
func (a answer) ok() answer {
	a.t.Helper()
	require.Equal(a.t, http.StatusOK, a.status, "%s: %s", a.of, a.raw)
	return a
}

// refused requires a problem with a status and a code.
func (a answer) refused(status int, code models.Code) answer {
	a.t.Helper()
	require.Equal(a.t, status, a.status, "%s: %s", a.of, a.raw)
	require.Equal(a.t, "application/problem+json", a.header.Get("Content-Type"), a.of)
	require.Equal(a.t, string(code), a.str("code"), "%s: %s", a.of, a.raw)
	assert.Equal(a.t, status, a.num("status"), a.of)
	assert.NotEmpty(a.t, a.str("detail"), a.of)
	assert.NotEmpty(a.t, a.str("title"), a.of)
	assert.Equal(a.t, a.header.Get("X-Request-Id"), a.str("requestId"), a.of)
	return a
}

// at finds a value by its path, "result.customer.id"; nil where there is none.
func (a answer) at(path string) any { return at(a.body, path) }

func at(value any, path string) any {
	if path == "" {
		return value
	}
	for _, name := range strings.Split(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[name]
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(v) {
				return nil
			}
			value = v[i]
		default:
			return nil
		}
	}
	return value
}

// members is the object at a path.
func (a answer) members(path string) object {
	a.t.Helper()
	members, ok := a.at(path).(object)
	require.True(a.t, ok, "%s has no object %s", a.of, path)
	return members
}

func (a answer) str(path string) string {
	text, _ := a.at(path).(string)
	return text
}

// num is a whole number.
func (a answer) num(path string) int {
	a.t.Helper()
	number, ok := a.at(path).(float64)
	require.True(a.t, ok && number == math.Trunc(number), "%s has no whole number %s: %s", a.of, path, a.raw)
	return int(number)
}

func (a answer) list(path string) []any {
	a.t.Helper()
	items, ok := a.at(path).([]any)
	require.True(a.t, ok, "%s has no list %s: %s", a.of, path, a.raw)
	return items
}

// pluck is one field of each item of a list.
func (a answer) pluck(list, field string) []string {
	a.t.Helper()
	var values []string
	for _, item := range a.list(list) {
		values = append(values, fmt.Sprint(at(item, field)))
	}
	return values
}

// clinic is an organization made through the front door, with a key of its own.
type clinic struct {
	*house
	id  string
	key string

	serving sync.Mutex      // guards served
	served  map[string]bool // the types that newResource was given
}

func (h *house) newClinic() *clinic {
	h.t.Helper()
	made := h.send(request{method: http.MethodPost, path: "/management/organizations", token: bootstrapKey, body: object{"name": "Al Noor", "timezone": "Asia/Riyadh"}}).ok()
	c := &clinic{house: h, id: made.str("result.id")}
	c.key = h.send(request{method: http.MethodPost, path: "/management/apiKeys", token: bootstrapKey, app: c.id, body: object{"name": "desk"}}).ok().str("result.key")
	require.NotEmpty(h.t, c.key)
	return c
}

type object = map[string]any

// staff makes a request with the organization's key.
func (c *clinic) staff(method, path string, body any) answer {
	c.t.Helper()
	return c.send(request{method: method, path: path, token: c.key, body: body})
}

func (c *clinic) newType(more object) string {
	c.t.Helper()
	body := object{"name": "General", "minutes": 10}
	for k, v := range more {
		body[k] = v
	}
	return c.staff(http.MethodPost, "/management/types", body).ok().str("result.id")
}

func (c *clinic) newResource(more object, types ...string) string {
	c.t.Helper()
	body := object{"name": "Room", "types": types}
	for k, v := range more {
		body[k] = v
	}
	c.serving.Lock()
	if c.served == nil {
		c.served = map[string]bool{}
	}
	for _, id := range types {
		c.served[id] = true
	}
	c.serving.Unlock()
	return c.staff(http.MethodPost, "/management/resources", body).ok().str("result.id")
}

// serve makes a resource for a type that has none: nobody can join it otherwise.
func (c *clinic) serve(typeID string) string {
	c.t.Helper()
	c.serving.Lock()
	served := c.served[typeID]
	c.serving.Unlock()
	if !served {
		c.newResource(object{"name": "Somewhere"}, typeID)
	}
	return typeID
}

// join puts somebody into the queue of a type from the desk. A type that no
// resource serves gets one first.
func (c *clinic) join(typeID string, more object) answer {
	c.t.Helper()
	c.serve(typeID)
	return c.staff(http.MethodPut, "/management/scheduling/new", joining(typeID, more)).ok()
}

func joining(typeID string, more object) object {
	body := object{"type": typeID, "assign": false}
	for k, v := range more {
		body[k] = v
	}
	return body
}

// act is POST /management/bookings/<verb>.
func (c *clinic) act(verb, bookingID string, more object) answer {
	c.t.Helper()
	body := object{"bookingId": bookingID}
	for k, v := range more {
		body[k] = v
	}
	return c.staff(http.MethodPost, "/management/bookings/"+verb, body)
}

func (c *clinic) next(resourceID string) answer {
	c.t.Helper()
	return c.staff(http.MethodPost, "/management/queue/next", object{"resourceId": resourceID})
}

// position is what staff are told of a booking's place; 0 when it does not wait.
func (c *clinic) position(bookingID string) int {
	c.t.Helper()
	a := c.staff(http.MethodGet, "/management/bookings/"+bookingID, nil).ok()
	if a.at("result.queuePosition") == nil {
		return 0
	}
	return a.num("result.queuePosition")
}

// signIn signs a person in with the one-time code.
func (c *clinic) signIn(phone string, member bool) answer {
	c.t.Helper()
	body := object{"method": "sms", "phoneNumber": phone, "isOrgMember": member}
	c.send(request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, body: body}).ok()
	body["code"] = fixedCode
	return c.send(request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: body}).ok()
}

// patient signs a customer in and returns their access token.
func (c *clinic) patient(phone string) string {
	c.t.Helper()
	return c.signIn(phone, false).str("accessToken")
}

// member makes a member of a role and signs them in.
func (c *clinic) member(role models.Role, phone string) string {
	c.t.Helper()
	c.exec("INSERT INTO members (id, organization_id, role, phone, created_at) VALUES (?, ?, ?, ?, ?)", models.NewID(), c.id, role, phone, time.Now().UTC())
	return c.signIn(phone, true).str("accessToken")
}
