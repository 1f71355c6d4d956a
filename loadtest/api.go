package loadtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// requestTimeout bounds one attempt.
	requestTimeout = 10 * time.Second
	// giveUpAfter bounds all attempts at one request: long enough for a node to
	// restart or another to take over.
	giveUpAfter = 30 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 1 << 20
	// maxIdleConnections keeps connections for the requests in flight: one for
	// each service and some starts and ends.
	maxIdleConnections = 64
)

// bookingDTO is the part of a booking the scenarios look at.
type bookingDTO struct {
	ID                   string `json:"id"`
	Status               string `json:"status"`
	Stage                string `json:"stage"`
	Ticket               string `json:"ticket"`
	ResourceID           string `json:"resourceId"`
	QueuePosition        *int   `json:"queuePosition"`
	EstimatedWaitMinutes *int   `json:"estimatedWaitMinutes"`
	TicketToken          string `json:"ticketToken"`
	RecallCount          int    `json:"recallCount"`
}

// typeDTO is the part of a booking type the scenarios look at.
type typeDTO struct {
	ID      string `json:"id"`
	Minutes int    `json:"minutes"`
}

// identified is any object of which only the id matters.
type identified struct {
	ID string `json:"id"`
}

// enveloped is how most answers come: {"result": …}.
type enveloped[T any] struct {
	Result T `json:"result"`
}

// refusal is an answer that means no.
type refusal struct {
	operation string
	status    int
	code      string
	detail    string
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("%s: HTTP %d", r.operation, r.status)
	if r.code != "" {
		text += " " + r.code
	}
	if r.detail != "" {
		text += ": " + r.detail
	}
	if r.status == http.StatusTooManyRequests {
		text += " (start the server with a larger NOWSERVING_RATE_LIMIT)"
	}
	return text
}

// definite tells whether the server certainly did not do what was asked. After
// a 5xx or a lost connection nobody knows.
func (r *refusal) definite() bool {
	return r.status >= 400 && r.status < 500
}

// api calls the public HTTP API of one or more nodes in turn. It is safe for
// concurrent use.
type api struct {
	nodes    []string
	key      string
	tenant   string
	http     *http.Client
	next     atomic.Uint64
	requests *requestStats
}

func newAPI(nodes []string, key string, requests *requestStats) *api {
	return &api{nodes: nodes, key: key, http: newHTTPClient(), requests: requests}
}

// newHTTPClient returns a client with connections of its own, so that a scenario
// can close every one of them when it ends.
func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConns:        maxIdleConnections * 2,
		MaxIdleConnsPerHost: maxIdleConnections,
		IdleConnTimeout:     time.Minute,
	}}
}

func (a *api) close() {
	a.http.CloseIdleConnections()
}

// change is one request as the truth sees it: when it was first sent and when it
// was answered. Between the two, both the old and the new state are true.
type change struct {
	sent     time.Time
	answered time.Time // zero while in flight
	before   []*watch  // who waited before it, while it may have to be undone
}

// call makes one request, and makes it again when the answer was lost: the same
// Idempotency-Key tells the server that it is the same request. It returns a
// *refusal when the server said no.
//
// alreadyDone says that a refusal of a repeated attempt means the first one
// succeeded; it is for steps that can happen once only.
func (a *api) call(ctx context.Context, operation, method, path string, body, answer any, alreadyDone bool) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", operation, err)
	}
	once := rand.Text()
	first := time.Now()
	turn := a.next.Add(1)
	for attempt := 0; ; attempt++ {
		// A repeated attempt goes to the next node: this one may be down.
		node := a.nodes[(turn+uint64(attempt))%uint64(len(a.nodes))]
		status, data, err := a.attempt(ctx, method, node+path, once, payload)
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", operation, context.Cause(ctx))
		}
		if err == nil && status == http.StatusOK {
			a.requests.answered(operation, time.Since(first))
			if answer == nil {
				return nil
			}
			if err := json.Unmarshal(data, answer); err != nil {
				return fmt.Errorf("%s: the answer is not what was agreed: %w", operation, err)
			}
			return nil
		}
		if err == nil {
			no := newRefusal(operation, status, data)
			if no.definite() {
				if attempt > 0 && alreadyDone && (status == http.StatusBadRequest || status == http.StatusConflict) {
					a.requests.answered(operation, time.Since(first))
					return nil
				}
				a.requests.failed.Add(1)
				return no
			}
			err = no
		}
		if time.Since(first) > giveUpAfter {
			a.requests.failed.Add(1)
			return fmt.Errorf("%s: gave up after %d attempts: %w", operation, attempt+1, err)
		}
		a.requests.repeated.Add(1)
		if err := pause(ctx, backoff(attempt, 50*time.Millisecond, 2*time.Second)); err != nil {
			return fmt.Errorf("%s: %w", operation, err)
		}
	}
}

func (a *api) attempt(ctx context.Context, method, address, once string, payload []byte) (status int, data []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(payload))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.key)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", once)
	if a.tenant != "" {
		req.Header.Set("X-APP-ID", a.tenant)
	}
	res, err := a.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	data, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if closeErr := res.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return res.StatusCode, data, nil
}

func newRefusal(operation string, status int, data []byte) *refusal {
	var problem struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
		Errors []struct {
			Field   string `json:"field"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	no := &refusal{operation: operation, status: status}
	if err := json.Unmarshal(data, &problem); err != nil {
		no.detail = "the answer is not a problem document"
		return no
	}
	no.code, no.detail = problem.Code, problem.Detail
	for _, e := range problem.Errors {
		no.detail += fmt.Sprintf("; %s: %s", e.Field, e.Message)
	}
	return no
}

func (a *api) createOrganization(ctx context.Context, name string) (string, error) {
	var out enveloped[identified]
	body := map[string]any{"name": name, "timezone": "UTC"}
	if err := a.call(ctx, "create organization", http.MethodPost, "/management/organizations", body, &out, false); err != nil {
		return "", err
	}
	return out.Result.ID, requireID("create organization", out.Result.ID)
}

func (a *api) createType(ctx context.Context, name string, minutes int) (typeDTO, error) {
	var out enveloped[typeDTO]
	body := map[string]any{"name": name, "minutes": minutes, "price": "0.00", "on": true, "autoConfirm": true}
	if err := a.call(ctx, "create type", http.MethodPost, "/management/types", body, &out, false); err != nil {
		return typeDTO{}, err
	}
	if out.Result.Minutes != minutes {
		return typeDTO{}, fmt.Errorf("create type: asked for %d minutes, got %d", minutes, out.Result.Minutes)
	}
	return out.Result, requireID("create type", out.Result.ID)
}

func (a *api) createResource(ctx context.Context, name, typeID string) (string, error) {
	var out enveloped[identified]
	body := map[string]any{"name": name, "on": true, "activated": true, "types": []string{typeID}}
	if err := a.call(ctx, "create resource", http.MethodPost, "/management/resources", body, &out, false); err != nil {
		return "", err
	}
	return out.Result.ID, requireID("create resource", out.Result.ID)
}

// join puts a walk-in into the queue of a type.
func (a *api) join(ctx context.Context, typeID string) (bookingDTO, error) {
	var out bookingDTO
	body := map[string]any{"type": typeID, "assign": false, "assignmentTimeout": maxWaitMinutes}
	if err := a.call(ctx, "join", http.MethodPut, "/management/scheduling/new", body, &out, false); err != nil {
		return bookingDTO{}, err
	}
	return out, requireID("join", out.ID)
}

// next calls the head of a resource's queue.
func (a *api) next(ctx context.Context, resourceID string) (bookingDTO, error) {
	var out enveloped[bookingDTO]
	body := map[string]any{"resourceId": resourceID}
	if err := a.call(ctx, "next", http.MethodPost, "/management/queue/next", body, &out, false); err != nil {
		return bookingDTO{}, err
	}
	return out.Result, requireID("next", out.Result.ID)
}

func (a *api) assign(ctx context.Context, bookingID, resourceID string) error {
	body := map[string]any{"bookingId": bookingID, "resourceId": resourceID}
	return a.call(ctx, "assign", http.MethodPost, "/management/bookings/assign", body, nil, true)
}

func (a *api) start(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID}
	return a.call(ctx, "start", http.MethodPost, "/management/bookings/start", body, nil, true)
}

func (a *api) end(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID}
	return a.call(ctx, "end", http.MethodPost, "/management/bookings/end", body, nil, true)
}

func (a *api) cancel(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID, "reason": "left without being served"}
	return a.call(ctx, "cancel", http.MethodPost, "/management/bookings/cancel", body, nil, true)
}

func requireID(operation, id string) error {
	if id == "" {
		return fmt.Errorf("%s: the answer has no id", operation)
	}
	return nil
}

// parseNodes checks the addresses of the nodes.
func parseNodes(addresses []string) ([]string, error) {
	if len(addresses) == 0 {
		return nil, errors.New("at least one URL is needed")
	}
	nodes := make([]string, 0, len(addresses))
	for _, address := range addresses {
		u, err := url.Parse(address)
		if err != nil {
			return nil, fmt.Errorf("url %q: %w", address, err)
		}
		if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, fmt.Errorf("url %q: want http://host:port", address)
		}
		nodes = append(nodes, strings.TrimRight(address, "/"))
	}
	return nodes, nil
}

// requestStats counts requests by what they do.
type requestStats struct {
	failed   atomic.Int64
	repeated atomic.Int64
	mu       sync.Mutex
	times    map[string]*histogram
}

func newRequestStats() *requestStats {
	return &requestStats{times: map[string]*histogram{}}
}

func (s *requestStats) answered(operation string, took time.Duration) {
	s.mu.Lock()
	h := s.times[operation]
	if h == nil {
		h = new(histogram)
		s.times[operation] = h
	}
	s.mu.Unlock()
	h.add(took)
}

// fill adds the time each kind of request took to a report.
func (s *requestStats) fill(r *Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, operation := range slices.Sorted(maps.Keys(s.times)) {
		r.curve("requests", "request "+operation, s.times[operation])
	}
}

// backoff doubles from base to limit and picks a random wait below it, so that
// clients cut off together do not come back together.
func backoff(attempt int, base, limit time.Duration) time.Duration {
	top := min(float64(base)*math.Pow(2, float64(attempt)), float64(limit))
	return time.Duration(top/2 + mathrand.Float64()*top/2) //nolint:gosec // nothing secret, only spread
}

// pause waits, or ends early with the context.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
