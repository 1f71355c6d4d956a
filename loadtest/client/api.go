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
	// giveUpAfter bounds all attempts at one request. A node restarts, or another takes over,
	// within this time.
	giveUpAfter = 30 * time.Second
	// MaxWaitMinutes is the longest assignmentTimeout the server accepts. Every patient asks
	// for it, so that no booking expires during a run.
	MaxWaitMinutes = 180
	// maxAnswer bounds the body that is read of a response.
	maxAnswer = 1 << 20
	// maxIdleConnections is the number of idle connections kept to each node.
	maxIdleConnections = 64
)

// RefusalError is a response with an error status.
type RefusalError struct {
	operation string
	status    int
	Code      string
	detail    string
}

// Error implements error.
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

// IsDefinite reports whether the server certainly did not make the change. After a 5xx or a
// lost connection the outcome is unknown.
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

// NewAPI returns an API for nodes that authenticates with key.
func NewAPI(nodes []string, key string, requests *RequestStats) *API {
	return &API{Nodes: nodes, Key: key, http: NewHTTPClient(), turns: new(atomic.Uint64), Requests: requests}
}

// As returns a copy of the API that authenticates with another key, for example a patient's
// token.
func (a *API) As(key string) *API {
	other := *a
	other.Key = key
	return &other
}

// NewHTTPClient returns a client with its own connections, so that a scenario can close all of
// them when it ends.
func NewHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConns:        maxIdleConnections * 2,
		MaxIdleConnsPerHost: maxIdleConnections,
		IdleConnTimeout:     time.Minute,
	}}
}

// Close closes the idle connections.
func (a *API) Close() {
	a.http.CloseIdleConnections()
}

// Call makes one request and counts it as failed if it does not succeed.
func (a *API) Call(ctx context.Context, operation, method, path string, body, answer any, alreadyDone bool) error {
	err := a.try(ctx, operation, method, path, body, answer, alreadyDone)
	if err != nil && ctx.Err() == nil {
		a.Requests.Failed.Add(1)
	}
	return err
}

// try makes one request. If a node does not answer, it repeats the request at the next node
// with the same Idempotency-Key, so that the server recognizes it. It returns a *RefusalError
// if the server refused.
//
// alreadyDone says that a refusal of a repeated attempt means that the first attempt
// succeeded. It is for changes that can happen only once.
func (a *API) try(ctx context.Context, operation, method, path string, body, answer any, alreadyDone bool) error {
	payload, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", operation, err)
	}
	key := rand.Text()
	first := time.Now()
	turn := a.turns.Add(1)
	for attempt := 0; ; attempt++ {
		// A repeated attempt goes to the next node, because this one may be down.
		node := a.Nodes[(turn+uint64(attempt))%uint64(len(a.Nodes))]
		status, data, sent, err := a.attempt(ctx, method, node+path, key, payload)
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", operation, context.Cause(ctx))
		}
		if err == nil && status == http.StatusOK {
			a.Requests.Answered(operation, time.Since(first))
			if answer == nil {
				return nil
			}
			if err := json.Unmarshal(data, answer); err != nil {
				return fmt.Errorf("%s: unexpected response: %w", operation, err)
			}
			return nil
		}
		if err == nil {
			refusal := newRefusalError(operation, status, data)
			if refusal.IsDefinite() {
				if attempt > 0 && alreadyDone && (status == http.StatusBadRequest || status == http.StatusConflict) {
					a.Requests.Answered(operation, time.Since(first))
					return nil
				}
				return refusal
			}
			err = refusal
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

// attempt makes one attempt. sent reports whether the server may have started to process the
// request: it was written completely at least once.
func (a *API) attempt(ctx context.Context, method, address, idempotencyKey string, payload []byte) (status int, data []byte, sent bool, err error) {
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
	// Without this the transport would silently repeat a request whose response was lost.
	req.GetBody = nil
	if a.Key != "" {
		req.Header.Set("Authorization", "Bearer "+a.Key)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", idempotencyKey)
	if a.Tenant != "" {
		req.Header.Set("X-APP-ID", a.Tenant)
	}
	res, err := a.http.Do(req)
	if err != nil {
		// The transport returns this error for a connection that was closed before the request
		// reached the server, even if the bytes had been written.
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
	refusal := &RefusalError{operation: operation, status: status}
	if err := json.Unmarshal(data, &problem); err != nil {
		refusal.detail = "the response is not a problem document"
		return refusal
	}
	refusal.Code, refusal.detail = problem.Code, problem.Detail
	for _, e := range problem.Errors {
		refusal.detail += fmt.Sprintf("; %s: %s", e.Field, e.Message)
	}
	return refusal
}

// CreateOrganization creates an organization and returns its ID.
func (a *API) CreateOrganization(ctx context.Context, name string) (string, error) {
	var out Envelope[Created]
	body := map[string]any{"name": name, "timezone": "UTC"}
	if err := a.Call(ctx, "create organization", http.MethodPost, "/management/organizations", body, &out, false); err != nil {
		return "", err
	}
	return out.Result.ID, requireID("create organization", out.Result.ID)
}

// CreateType creates a booking type.
func (a *API) CreateType(ctx context.Context, name string, minutes int) (BookingType, error) {
	var out Envelope[BookingType]
	body := map[string]any{"name": name, "minutes": minutes, "price": "0.00", "on": true, "autoConfirm": true}
	if err := a.Call(ctx, "create type", http.MethodPost, "/management/types", body, &out, false); err != nil {
		return BookingType{}, err
	}
	if out.Result.Minutes != minutes {
		return BookingType{}, fmt.Errorf("create type: requested %d minutes, got %d", minutes, out.Result.Minutes)
	}
	return out.Result, requireID("create type", out.Result.ID)
}

// CreateResource creates a resource for one booking type and returns its ID.
func (a *API) CreateResource(ctx context.Context, name, typeID string) (string, error) {
	var out Envelope[Created]
	body := map[string]any{"name": name, "on": true, "activated": true, "types": []string{typeID}}
	if err := a.Call(ctx, "create resource", http.MethodPost, "/management/resources", body, &out, false); err != nil {
		return "", err
	}
	return out.Result.ID, requireID("create resource", out.Result.ID)
}

// Join adds a walk-in to the queue of a booking type.
func (a *API) Join(ctx context.Context, typeID string) (Booking, error) {
	var out Booking
	body := map[string]any{"type": typeID, "assign": false, "assignmentTimeout": MaxWaitMinutes}
	if err := a.Call(ctx, "join", http.MethodPut, "/management/scheduling/new", body, &out, false); err != nil {
		return Booking{}, err
	}
	return out, requireID("join", out.ID)
}

// CallNext calls the first patient of a resource's queue.
func (a *API) CallNext(ctx context.Context, resourceID string) (Booking, error) {
	var out Envelope[Booking]
	body := map[string]any{"resourceId": resourceID}
	if err := a.Call(ctx, "next", http.MethodPost, "/management/queue/next", body, &out, false); err != nil {
		return Booking{}, err
	}
	return out.Result, requireID("next", out.Result.ID)
}

// Assign assigns a waiting booking to a resource.
func (a *API) Assign(ctx context.Context, bookingID, resourceID string) error {
	body := map[string]any{"bookingId": bookingID, "resourceId": resourceID}
	return a.Call(ctx, "assign", http.MethodPost, "/management/bookings/assign", body, nil, true)
}

// Start starts the visit of a called booking.
func (a *API) Start(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID}
	return a.Call(ctx, "start", http.MethodPost, "/management/bookings/start", body, nil, true)
}

// End ends a visit.
func (a *API) End(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID}
	return a.Call(ctx, "end", http.MethodPost, "/management/bookings/end", body, nil, true)
}

// Cancel cancels a booking as a member of the organization.
func (a *API) Cancel(ctx context.Context, bookingID string) error {
	body := map[string]any{"bookingId": bookingID, "reason": "left without being served"}
	return a.Call(ctx, "cancel", http.MethodPost, "/management/bookings/cancel", body, nil, true)
}

// Return returns a held patient to the queue. The booking shows the new position.
func (a *API) Return(ctx context.Context, bookingID string) (Booking, error) {
	var out Envelope[Booking]
	err := a.Call(ctx, "return", http.MethodPost, "/management/bookings/return", map[string]any{"bookingId": bookingID}, &out, false)
	return out.Result, err
}

// Hold removes a patient from the queue until Return.
func (a *API) Hold(ctx context.Context, bookingID string) error {
	return a.Call(ctx, "hold", http.MethodPost, "/management/bookings/hold", map[string]any{"bookingId": bookingID}, nil, true)
}

// NoShow ends the booking of a patient who did not come when called.
func (a *API) NoShow(ctx context.Context, bookingID string) error {
	return a.Call(ctx, "no-show", http.MethodPost, "/management/bookings/noShow", map[string]any{"bookingId": bookingID}, nil, true)
}

// Recall calls a patient again. It does not count a refusal as a failed request, because the
// caller decides whether it was correct.
func (a *API) Recall(ctx context.Context, bookingID string) error {
	return a.try(ctx, "recall", http.MethodPost, "/management/bookings/recall", map[string]any{"bookingId": bookingID}, nil, false)
}

// Leave cancels a booking with the token of its ticket alone.
func (a *API) Leave(ctx context.Context, bookingID string) error {
	return a.Call(ctx, "leave", http.MethodPost, "/customer/bookings/cancel", map[string]any{"bookingId": bookingID}, nil, true)
}

// SignIn signs a patient in by phone and returns an API with the patient's session.
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

// JoinByPhone adds a signed-in patient to the queue of a booking type.
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
		return fmt.Errorf("%s: the response has no id", operation)
	}
	return nil
}

// ParseNodes checks the addresses of the nodes and removes trailing slashes.
func ParseNodes(addresses []string) ([]string, error) {
	if len(addresses) == 0 {
		return nil, errors.New("at least one URL is required")
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
