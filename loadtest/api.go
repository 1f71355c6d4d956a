package loadtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// requestTimeout bounds one attempt.
	requestTimeout = 10 * time.Second
	// giveUpAfter bounds all attempts at one request: long enough for a node to
	// restart or another to take over.
	giveUpAfter = 30 * time.Second
	// maxWaitMinutes is the longest assignmentTimeout the server accepts. Every
	// patient asks for it, so that no booking expires in the middle of a replay.
	maxWaitMinutes = 180
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 1 << 20
	// maxIdleConnections keeps connections for the requests in flight: one for
	// each service and some starts and ends.
	maxIdleConnections = 64
)

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
	turns    *atomic.Uint64
	requests *requestStats
}

func newAPI(nodes []string, key string, requests *requestStats) *api {
	return &api{nodes: nodes, key: key, http: newHTTPClient(), turns: new(atomic.Uint64), requests: requests}
}

// as returns the same API for somebody else: a patient instead of the desk.
func (a *api) as(key string) *api {
	other := *a
	other.key = key
	return &other
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

// call makes one request and counts it as failed unless it succeeded.
func (a *api) call(ctx context.Context, operation, method, path string, body, answer any, alreadyDone bool) error {
	err := a.try(ctx, operation, method, path, body, answer, alreadyDone)
	if err != nil && ctx.Err() == nil {
		a.requests.failed.Add(1)
	}
	return err
}

// try makes one request, and makes it again at the next node when a node did
// not answer: the same Idempotency-Key tells the server that it is the same
// request. It returns a *refusal when the server said no.
//
// alreadyDone says that a refusal of a repeated attempt means the first one
// succeeded; it is for steps that can happen once only.
func (a *api) try(ctx context.Context, operation, method, path string, body, answer any, alreadyDone bool) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", operation, err)
	}
	once := rand.Text()
	first := time.Now()
	turn := a.turns.Add(1)
	for attempt := 0; ; attempt++ {
		// A repeated attempt goes to the next node: this one may be down.
		node := a.nodes[(turn+uint64(attempt))%uint64(len(a.nodes))]
		status, data, sent, err := a.attempt(ctx, method, node+path, once, payload)
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
				return no
			}
			err = no
		}
		a.requests.unanswered(operation, node, status, sent, err)
		if time.Since(first) > giveUpAfter {
			return fmt.Errorf("%s: gave up after %d attempts: %w", operation, attempt+1, err)
		}
		if err := pause(ctx, backoff(attempt, 50*time.Millisecond, 2*time.Second)); err != nil {
			return fmt.Errorf("%s: %w", operation, err)
		}
	}
}

// attempt makes one attempt. sent tells whether the server may have begun to
// work on it: the whole request was written, at least once.
func (a *api) attempt(ctx context.Context, method, address, once string, payload []byte) (status int, data []byte, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var written atomic.Int64
	trace := &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		if info.Err == nil {
			written.Add(1)
		}
	}}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), method, address, bytes.NewReader(payload))
	if err != nil {
		return 0, nil, false, err
	}
	// Without this the transport would, unseen, repeat a request whose answer was lost.
	req.GetBody = nil
	if a.key != "" {
		req.Header.Set("Authorization", "Bearer "+a.key)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", once)
	if a.tenant != "" {
		req.Header.Set("X-APP-ID", a.tenant)
	}
	res, err := a.http.Do(req)
	if err != nil {
		// A connection that was closed before the request could reach the server
		// shows this error, whether or not the bytes had been written by then.
		idle := strings.Contains(err.Error(), "server closed idle connection")
		return 0, nil, written.Load() > 0 && !idle, err
	}
	data, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if closeErr := res.Body.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, nil, true, fmt.Errorf("read answer: %w", err)
	}
	return res.StatusCode, data, true, nil
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

// callNext calls the head of a resource's queue.
func (a *api) callNext(ctx context.Context, resourceID string) (bookingDTO, error) {
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

// back returns a held patient to the line and says where that is.
func (a *api) back(ctx context.Context, bookingID string) (bookingDTO, error) {
	var out enveloped[bookingDTO]
	err := a.call(ctx, "return", http.MethodPost, "/management/bookings/return", map[string]any{"bookingId": bookingID}, &out, false)
	return out.Result, err
}

func (a *api) hold(ctx context.Context, bookingID string) error {
	return a.call(ctx, "hold", http.MethodPost, "/management/bookings/hold", map[string]any{"bookingId": bookingID}, nil, true)
}

func (a *api) noShow(ctx context.Context, bookingID string) error {
	return a.call(ctx, "no-show", http.MethodPost, "/management/bookings/noShow", map[string]any{"bookingId": bookingID}, nil, true)
}

// recall does not count a refusal: whether it was right is for the caller to say.
func (a *api) recall(ctx context.Context, bookingID string) error {
	return a.try(ctx, "recall", http.MethodPost, "/management/bookings/recall", map[string]any{"bookingId": bookingID}, nil, false)
}

// leave is what a patient does with the token of the ticket alone.
func (a *api) leave(ctx context.Context, bookingID string) error {
	return a.call(ctx, "leave", http.MethodPost, "/customer/bookings/cancel", map[string]any{"bookingId": bookingID}, nil, true)
}

// signIn gives a patient with a phone an API of its own.
func (a *api) signIn(ctx context.Context, phone, code string) (*api, error) {
	patient := a.as("")
	body := map[string]any{"method": "sms", "phoneNumber": phone, "isOrgMember": false}
	if err := patient.call(ctx, "request code", http.MethodPost, "/auth/otp/request", body, nil, false); err != nil {
		return nil, err
	}
	body["code"] = code
	var session struct {
		AccessToken string `json:"accessToken"`
	}
	if err := patient.call(ctx, "verify code", http.MethodPost, "/auth/otp/verify", body, &session, false); err != nil {
		return nil, err
	}
	return a.as(session.AccessToken), nil
}

// joinQueue is how a patient who has signed in joins.
func (a *api) joinQueue(ctx context.Context, typeID string) (bookingDTO, error) {
	var out enveloped[bookingDTO]
	body := map[string]any{"type": typeID, "assign": false, "assignmentTimeout": maxWaitMinutes}
	if err := a.call(ctx, "join by phone", http.MethodPut, "/customer/scheduling/new", body, &out, false); err != nil {
		return bookingDTO{}, err
	}
	return out.Result, requireID("join by phone", out.Result.ID)
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
