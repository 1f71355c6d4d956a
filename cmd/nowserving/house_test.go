package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node"
)

// The SDK waits out its own read timeout after a connection ends.
func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError) // the log would tear the lines of benchmarks apart
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/centrifugal/centrifuge-go.(*Client).sendAsync.func1"))
}

// patience is how long a test waits for what is to come, in the browser too; it
// only ever ends for what does not.
const patience = time.Minute

// testKey is the bootstrap key of servers in tests.
const testKey = "bootstrap-key-of-a-test"

// backend names a pair of databases and makes its settings.
type backend struct {
	name     string
	settings func(t testing.TB) []string
}

var backends = []backend{
	{"embedded", func(t testing.TB) []string { return []string{"NOWSERVING_DATA=" + t.TempDir()} }},
	{"postgres", func(t testing.TB) []string {
		return []string{
			"DATABASE_URL=" + storetest.Postgres(t), "REDIS_URL=" + storetest.Redis(t).URL,
			"NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef",
		}
	}},
}

// settings are what every test server shares.
func settings(more []string) []string {
	return append([]string{
		"NOWSERVING_ADDR=127.0.0.1:0", "NOWSERVING_ENV=development", "NOWSERVING_OTP_FIXED_CODE=" + demoCode,
		"NOWSERVING_BOOTSTRAP_KEY=" + testKey, "NOWSERVING_RATE_LIMIT=1000000",
	}, more...)
}

// start runs a node in this process until the test ends, and returns a client
// of it.
func start(t testing.TB, environ []string) *client {
	t.Helper()
	c, err := node.ReadConfig(settings(environ))
	require.NoError(t, err)
	return startWith(t, c)
}

// startWith is start with a configuration that was read already.
func startWith(t testing.TB, c node.Config) *client {
	t.Helper()
	n, err := node.New(t.Context(), c)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var failure error
	var running sync.WaitGroup
	running.Go(func() { failure = n.Run(ctx) })
	t.Cleanup(func() {
		stop()
		running.Wait()
		require.NoError(t, errors.Join(failure, n.Close()))
		n = nil // the testing package keeps this function
	})
	select {
	case <-n.Serving():
	case <-t.Context().Done():
	}
	return newClient(t, n.URL)
}

// client calls the API as staff of one organization.
type client struct {
	t     testing.TB
	url   string
	http  *http.Client
	key   string
	appID string
}

func newClient(t testing.TB, url string) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{t: t, url: url, http: &http.Client{Transport: transport, Timeout: patience}, key: testKey}
}

// try makes a request and returns its status and body.
func (c *client) try(method, path string, body any) (int, []byte, error) {
	status, _, answer, err := c.ask(method, path, body)
	return status, answer, err
}

// ask is try that also says whether the server asked for no more requests over
// the connection.
func (c *client) ask(method, path string, body any) (status int, closing bool, answer []byte, err error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return 0, false, nil, err
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(c.t.Context()), method, c.url+path, bytes.NewReader(payload))
	if err != nil {
		return 0, false, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.key)
	if c.appID != "" {
		req.Header.Set("X-APP-ID", c.appID)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, false, nil, err
	}
	answer, err = io.ReadAll(res.Body)
	if closing := res.Body.Close(); err == nil {
		err = closing
	}
	return res.StatusCode, res.Close, answer, err
}

// call makes a request that must succeed and returns the object it answers
// with, out of its envelope.
func (c *client) call(method, path string, body any) object {
	c.t.Helper()
	status, answer, err := c.try(method, path, body)
	require.NoError(c.t, err)
	require.Equal(c.t, http.StatusOK, status, "%s %s: %s", method, path, answer)
	var whole struct{ Result object }
	require.NoError(c.t, json.Unmarshal(answer, &whole))
	if whole.Result != nil {
		return whole.Result
	}
	var bare object
	require.NoError(c.t, json.Unmarshal(answer, &bare))
	return bare
}

// object is a JSON object of an answer.
type object map[string]any

// text returns a field that is a text, or nothing.
func (o object) text(name string) string {
	text, _ := o[name].(string)
	return text
}

// clinic makes an organization with one type of ten minutes and one resource.
func (c *client) clinic() (typeID, resourceID string) {
	c.t.Helper()
	c.appID = c.call("POST", "/management/organizations", map[string]any{"name": "Clinic", "timezone": "Asia/Riyadh"}).text("id")
	typeID = c.call("POST", "/management/types", map[string]any{"name": "Visit", "minutes": 10, "on": true}).text("id")
	resourceID = c.call("POST", "/management/resources", map[string]any{
		"name": "Room 1", "on": true, "activated": true, "types": []string{typeID},
	}).text("id")
	return typeID, resourceID
}

// join adds a walk-in and returns the booking with its ticketToken.
func (c *client) join(typeID string) object {
	c.t.Helper()
	return c.call("PUT", "/management/scheduling/new", map[string]any{"type": typeID, "assign": false, "assignmentTimeout": 180})
}
