package client

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
	// MaxWaitMinutes is the longest assignmentTimeout the server accepts. Every
	// patient asks for it, so that no booking expires in the middle of a replay.
	MaxWaitMinutes = 180
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 1 << 20
	// maxIdleConnections keeps connections for the requests in flight: one for
	// each service and some starts and ends.
	maxIdleConnections = 64
)

// RefusalError is an answer that means no.
type RefusalError struct {
	operation string
	status    int
	Code      string
	detail    string
}

func (r *RefusalError) Error() string {
	text := fmt.Sprintf("%s: HTTP %d", r.operation, r.status)
	if r.Code != "" {
		text += " " + r.Code
	}
	if r.detail != "" {
		text += ": " + r.detail
	}
	if r.status == http.StatusTooManyRequests {
		text += " (start the server with a larger NOWSERVING_RATE_LIMIT)"
	}
	return text
}

// IsDefinite tells whether the server certainly did not do what was asked. After
// a 5xx or a lost connection nobody knows.
func (r *RefusalError) IsDefinite() bool {
	return r.status >= 400 && r.status < 500
}

// API calls the public HTTP API of one or more nodes in turn. It is safe for
// concurrent use.
type API struct {
	Nodes    []string
	Key      string
	Tenant   string
	http     *http.Client
	turns    *atomic.Uint64
	Requests *RequestStats
}

func NewAPI(nodes []string, key string, requests *RequestStats) *API {
	return &API{Nodes: nodes, Key: key, http: NewHTTPClient(), turns: new(atomic.Uint64), Requests: requests}
}

// As returns the same API for somebody else: a patient instead of the desk.
func (a *API) As(key string) *API {
	other := *a
	other.Key = key
	return &other
}

// NewHTTPClient returns a client with connections of its own, so that a scenario
// can close every one of them when it ends.
func NewHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConns:        maxIdleConnections * 2,
		MaxIdleConnsPerHost: maxIdleConnections,
		IdleConnTimeout:     time.Minute,
	}}
}

func (a *API) Close() {
	a.http.CloseIdleConnections()
}

// Call makes one request and counts it as failed unless it succeeded.
func (a *API) Call(ctx context.Context, operation, method, path string, body, answer any, alreadyDone bool) error {
	err := a.try(ctx, operation, method, path, body, answer, alreadyDone)
	if err != nil && ctx.Err() == nil {
		a.Requests.Failed.Add(1)
	}
	return err
}

// try makes one request, and makes it again at the next node when a node did
// not answer: the same Idempotency-Key tells the server that it is the same
// request. It returns a *refusal when the server said no.
//
// alreadyDone says that a refusal of a repeated attempt means the first one
// succeeded; it is for steps that can happen once only.
func (a *API) try(ctx context.Context, operation, method, path string, body, answer any, alreadyDone bool) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", operation, err)
	}
	once := rand.Text()
	first := time.Now()
	turn := a.turns.Add(1)
	for attempt := 0; ; attempt++ {
		// A repeated attempt goes to the next node: this one may be down.
		node := a.Nodes[(turn+uint64(attempt))%uint64(len(a.Nodes))]
		status, data, sent, err := a.attempt(ctx, method, node+path, once, payload)
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", operation, context.Cause(ctx))
		}
		if err == nil && status == http.StatusOK {
			a.Requests.Answered(operation, time.Since(first))
			if answer == nil {
				return nil
			}
			if err := json.Unmarshal(data, answer); err != nil {
				return fmt.Errorf("%s: the answer is not what was agreed: %w", operation, err)
			}
			return nil
		}
		if err == nil {
			no := newRefusalError(operation, status, data)
			if no.IsDefinite() {
				if attempt > 0 && alreadyDone && (status == http.StatusBadRequest || status == http.StatusConflict) {
					a.Requests.Answered(operation, time.Since(first))
					return nil
				}
				return no
			}
			err = no
		}
		a.Requests.unanswered(operation, node, status, sent, err)
		if time.Since(first) > giveUpAfter {
			return fmt.Errorf("%s: gave up after %d attempts: %w", operation, attempt+1, err)
		}
		if err := Pause(ctx, Backoff(attempt, 50*time.Millisecond, 2*time.Second)); err != nil {
			return fmt.Errorf("%s: %w", operation, err)
		}
	}
}

// attempt makes one attempt. sent tells whether the server may have begun to
// work on it: the whole request was written, at least once.
func (a *API) attempt(ctx context.Context, method, address, once string, payload []byte) (status int, data []byte, sent bool, err error) {
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
	if a.Key != "" {
		req.Header.Set("Authorization", "Bearer "+a.Key)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", once)
	if a.Tenant != "" {
		req.Header.Set("X-APP-ID", a.Tenant)
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

func newRefusalError(operation string, status int, data []byte) *RefusalError {
	var problem struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
		Errors []struct {
			Field   string `json:"field"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	no := &RefusalError{operation: operation, status: status}
	if err := json.Unmarshal(data, &problem); err != nil {
		no.detail = "the answer is not a problem document"
		return no
	}
	no.Code, no.detail = problem.Code, problem.Detail
	for _, e := range problem.Errors {
		no.detail += fmt.Sprintf("; %s: %s", e.Field, e.Message)
	}
	return no
}

func (a *API) CreateOrganization(ctx context.Context, name string) (string, error) {
	var out Envelope[Created]
	body := map[string]any{"name": name, "timezone": "UTC"}
	if err := a.Call(ctx, "create organization", http.MethodPost, "/management/organizations", body, &out, false); err != nil {
		return "", err
	}
	return out.Result.ID, requireID("create organization", out.Result.ID)
}

func (a *API) CreateType(ctx context.Context, name string, minutes int) (BookingType, error) {
	var out Envelope[BookingType]
	body := map[string]any{"name": name, "minutes": minutes, "price": "0.00", "on": true, "autoConfirm": true}
	if err := a.Call(ctx, "create type", http.MethodPost, "/management/types", body, &out, false); err != nil {
		return BookingType{}, err
	}
	if out.Result.Minutes != minutes {
		return BookingType{}, fmt.Errorf("create type: asked for %d minutes, got %d", minutes, out.Result.Minutes)
	}
	return out.Result, requireID("create type", out.Result.ID)
}

func (a *API) CreateResource(ctx context.Context, name, typeID string) (string, error) {
	var out Envelope[Created]
	body := map[string]any{"name": name, "on": true, "activated": true, "types": []string{typeID}}
	if err := a.Call(ctx, "create resource", http.MethodPost, "/management/resources", body, &out, false); err != nil {
		return "", err
	}
	return out.Result.ID, requireID("create resource", out.Result.ID)
}

// Join puts a walk-in into the queue of a type.
func (a *API) Join(ctx context.Context, typeID string) (Booking, error) {
	var out Booking
	body := map[string]any{"type": typeID, "assign": false, "assignmentTimeout": MaxWaitMinutes}
	if err := a.Call(ctx, "join", http.MethodPut, "/management/scheduling/new", body, &out, false); err != nil {
		return Booking{}, err
	}
	return out, requireID("join", out.ID)
}

// CallNext calls the head of a resource's queue.
func (a *API) CallNext(ctx context.Context, resourceID string) (Booking, error) {
	var out Envelope[Booking]
	body := map[string]any{"resourceId": resourceID}
	if err := a.Call(ctx, "next", http.MethodPost, "/management/queue/next", body, &out, false); err != nil {
		return Booking{}, err
	}
	return out.Result, requireID("next", out.Result.ID)
}

func (a *API) Assign(ctx context.Context, bookingID, resourceID string) error {
	body := map[string]any{"bookingId": bookingID, "resourceId": resourceID}
	return a.Call(ctx, "assign", http.MethodPost, "/management/bookings/assign", body, nil, true)
}

func (a *API) Start(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID}
	return a.Call(ctx, "start", http.MethodPost, "/management/bookings/start", body, nil, true)
}

func (a *API) End(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID}
	return a.Call(ctx, "end", http.MethodPost, "/management/bookings/end", body, nil, true)
}

func (a *API) Cancel(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID, "reason": "left without being served"}
	return a.Call(ctx, "cancel", http.MethodPost, "/management/bookings/cancel", body, nil, true)
}

// Return returns a held patient to the line and says where that is.
func (a *API) Return(ctx context.Context, bookingID string) (Booking, error) {
	var out Envelope[Booking]
	err := a.Call(ctx, "return", http.MethodPost, "/management/bookings/return", map[string]any{"bookingId": bookingID}, &out, false)
	return out.Result, err
}

func (a *API) Hold(ctx context.Context, bookingID string) error {
	return a.Call(ctx, "hold", http.MethodPost, "/management/bookings/hold", map[string]any{"bookingId": bookingID}, nil, true)
}

func (a *API) NoShow(ctx context.Context, bookingID string) error {
	return a.Call(ctx, "no-show", http.MethodPost, "/management/bookings/noShow", map[string]any{"bookingId": bookingID}, nil, true)
}

// Recall does not count a refusal: whether it was right is for the caller to say.
func (a *API) Recall(ctx context.Context, bookingID string) error {
	return a.try(ctx, "recall", http.MethodPost, "/management/bookings/recall", map[string]any{"bookingId": bookingID}, nil, false)
}

// Leave is what a patient does with the token of the ticket alone.
func (a *API) Leave(ctx context.Context, bookingID string) error {
	return a.Call(ctx, "leave", http.MethodPost, "/customer/bookings/cancel", map[string]any{"bookingId": bookingID}, nil, true)
}

// SignIn gives a patient with a phone an API of its own.
func (a *API) SignIn(ctx context.Context, phone, code string) (*API, error) {
	patient := a.As("")
	body := map[string]any{"method": "sms", "phoneNumber": phone, "isOrgMember": false}
	if err := patient.Call(ctx, "request code", http.MethodPost, "/auth/otp/request", body, nil, false); err != nil {
		return nil, err
	}
	body["code"] = code
	var session struct {
		AccessToken string `json:"accessToken"`
	}
	if err := patient.Call(ctx, "verify code", http.MethodPost, "/auth/otp/verify", body, &session, false); err != nil {
		return nil, err
	}
	return a.As(session.AccessToken), nil
}

// JoinByPhone is how a patient who has signed in joins.
func (a *API) JoinByPhone(ctx context.Context, typeID string) (Booking, error) {
	var out Envelope[Booking]
	body := map[string]any{"type": typeID, "assign": false, "assignmentTimeout": MaxWaitMinutes}
	if err := a.Call(ctx, "join by phone", http.MethodPut, "/customer/scheduling/new", body, &out, false); err != nil {
		return Booking{}, err
	}
	return out.Result, requireID("join by phone", out.Result.ID)
}

func requireID(operation, id string) error {
	if id == "" {
		return fmt.Errorf("%s: the answer has no id", operation)
	}
	return nil
}

// ParseNodes checks the addresses of the nodes.
func ParseNodes(addresses []string) ([]string, error) {
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
