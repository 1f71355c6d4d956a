package nodetest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
)

// OwnSecret is a secret that a caller brings.
const OwnSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr" //nolint:gosec // of tests

// OnBothWith is OnBoth with the change first.
func OnBothWith(t *testing.T, change func(*node.Config), test func(t *testing.T, h *Node)) {
	t.Helper()
	OnBoth(t, test, change)
}

// AllowPrivate lets webhooks reach the receivers of these tests.
func AllowPrivate(c *node.Config) { c.WebhookAllowPrivate = true }

// Arrival is a request that reached a Receiver.
type Arrival struct {
	Header http.Header
	Raw    []byte
	Body   any
	Time   time.Time
}

// ID returns the webhook-id of the delivery.
func (a Arrival) ID() string { return a.Header.Get("webhook-id") }

// Trigger returns the trigger of the delivery.
func (a Arrival) Trigger() string { return fmt.Sprint(At(a.Body, "trigger")) }

// Sequence returns the sequence number of the delivery.
func (a Arrival) Sequence() int64 {
	sequence, _ := At(a.Body, "data.sequence").(float64)
	return int64(sequence)
}

// Receiver is a server that webhooks are sent to.
type Receiver struct {
	t   testing.TB
	URL string

	mu  sync.Mutex
	got []Arrival
}

// NewReceiver starts a receiver. It answers 200, or as answer does, which is called once
// the delivery is among the Arrivals.
func NewReceiver(t testing.TB, answer http.HandlerFunc) *Receiver {
	t.Helper()
	r := &Receiver{t: t}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			return // the sender hung up in the middle
		}
		a := Arrival{Header: req.Header, Raw: raw, Time: time.Now()}
		assert.NoError(t, json.Unmarshal(raw, &a.Body))
		r.mu.Lock()
		r.got = append(r.got, a)
		r.mu.Unlock()
		if answer != nil {
			answer(w, req)
		}
	}))
	t.Cleanup(server.Close)
	r.URL = server.URL + "/hook"
	return r
}

// Arrivals returns what has arrived so far.
func (r *Receiver) Arrivals() []Arrival {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// Await waits until so many have arrived, and returns them.
func (r *Receiver) Await(n int) []Arrival {
	r.t.Helper()
	require.Eventually(r.t, func() bool { return len(r.Arrivals()) >= n }, Patience, 5*time.Millisecond, "%d of %d arrived", len(r.Arrivals()), n)
	return r.Arrivals()
}

// Answering is an answer with a status.
func Answering(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

// Hook adds a webhook and returns its id.
func (c *Clinic) Hook(trigger, url string, more Object) string {
	c.T.Helper()
	return c.AddHook(trigger, url, more).OK().Str("webhook.id")
}

// AddHook makes the request to add a webhook.
func (c *Clinic) AddHook(trigger, url string, more Object) Response {
	c.T.Helper()
	body := Object{"trigger": trigger, "url": url, "secret": OwnSecret}
	maps.Copy(body, more)
	return c.Staff(http.MethodPost, "/management/webhooks", body)
}

// Deliveries returns the log of deliveries.
func (c *Clinic) Deliveries(query string) Response {
	c.T.Helper()
	return c.Staff(http.MethodGet, "/management/webhooks/deliveries?"+query, nil).OK()
}

// Settled waits until a webhook's deliveries satisfy a condition.
func (c *Clinic) Settled(query string, done func(a Response) bool) Response {
	c.T.Helper()
	var last Response
	require.Eventually(c.T, func() bool {
		last = c.Deliveries(query)
		return done(last)
	}, Patience, 50*time.Millisecond, "%s", "the deliveries did not come to what was expected")
	return last
}

// Attempted is a condition: the newest delivery has so many attempts.
func Attempted(n int) func(Response) bool {
	return func(a Response) bool { return len(a.List("result")) > 0 && a.Num("result.0.attemptCount") == n }
}

// Still waits until no attempt is under way.
func (h *Node) Still() {
	h.T.Helper()
	require.Eventually(h.T, func() bool {
		return Scalar[int](h, "SELECT count(*) FROM river_job WHERE kind = 'webhook' AND state = 'running'") == 0
	}, Patience, 5*time.Millisecond, "an attempt does not end")
}

// Rest puts off all that is planned, so that nothing is tried again by itself
// before the test looks: the first retry comes after 5 s.
func (h *Node) Rest() {
	h.T.Helper()
	h.Exec("UPDATE webhook_deliveries SET next_attempt_at = ? WHERE status = 'pending'", time.Now().UTC().Add(time.Hour))
	h.Still()
}

// Hurry makes every waiting attempt due, without shifting any clock.
func (h *Node) Hurry() {
	h.T.Helper()
	h.Still()
	h.Exec("UPDATE webhook_deliveries SET next_attempt_at = ? WHERE status = 'pending'", time.Now().UTC().Add(-time.Hour))
	h.Exec("UPDATE river_job SET state = 'available', scheduled_at = '2020-01-01 00:00:00' WHERE kind = 'webhook' AND state IN ('available', 'scheduled', 'retryable')")
}

// Verified requires both kinds of signature, by the official verifier.
func Verified(t testing.TB, a Arrival, secret string) {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret)
	require.NoError(t, err)
	assert.NoError(t, verifier.Verify(a.Raw, a.Header))
	changed := append([]byte(" "), a.Raw...)
	assert.Error(t, verifier.Verify(changed, a.Header), "a changed body")
}
