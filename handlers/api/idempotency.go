package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	idempotencyKey = "Idempotency-Key"
	// maxIdempotencyKey bounds the key, in bytes.
	maxIdempotencyKey = 255
	// settleTime bounds how long storing an answer takes.
	settleTime = 5 * time.Second
)

// repeatable reports whether the operation takes an Idempotency-Key: every POST and
// PUT except those of signing in.
func (op Operation) repeatable() bool {
	return op.Roles != Public && (op.Method == http.MethodPost || op.Method == http.MethodPut)
}

// onlyOnce carries out a request with an Idempotency-Key once, and answers
// repetitions with the same answer. It runs after admit and readBody.
func (a *API) onlyOnce(ctx huma.Context, next func(huma.Context)) {
	key := ctx.Header(idempotencyKey)
	if key == "" {
		next(ctx)
		return
	}
	c := humagin.Unwrap(ctx)
	claim, err := a.claim(c, CallerOf(ctx.Context()), key)
	if err != nil {
		a.WriteError(c, err)
		return
	}
	if claim == nil { // answered as before
		c.Abort()
		return
	}
	answer := &keptAnswer{ResponseWriter: c.Writer, status: http.StatusOK, guest: CallerOf(ctx.Context()).Kind == ""}
	c.Writer = answer
	defer func() {
		// The answer is stored before it is sent: a client that got it gets the same
		// again.
		c.Writer = answer.ResponseWriter
		a.settle(ctx.Context(), claim, answer)
		answer.send()
	}()
	next(huma.WithContext(ctx, store.WithIdempotency(ctx.Context(), claim)))
	answer.whole = true
}

// claim gets the right to carry out a request. It returns nil if it has written the
// stored answer of an earlier request instead.
func (a *API) claim(c *gin.Context, who Caller, key string) (*store.Claim, error) {
	if len(key) > maxIdempotencyKey || strings.IndexFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return nil, models.Invalid(idempotencyKey, "It has at most %d printable characters of ASCII.", maxIdempotencyKey)
	}
	body, err := io.ReadAll(c.Request.Body)
	if err != nil {
		return nil, fmt.Errorf("read a body again: %w", err)
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(body))
	subject := string(who.Kind) + ":" + who.SubjectID
	if who.Kind == "" { // guests of one network; their keys are random
		subject = "guest:" + a.HashedNetwork(who)
	}
	what := fmt.Sprintf("%s %q %q\n", c.Request.Method, c.Request.URL.Path, c.Request.URL.RawQuery)
	hash := models.HashSecret(what + string(body))
	claim, earlier, err := a.Store.Claim(c.Request.Context(), store.Request{
		OrganizationID: who.OrganizationID, Subject: subject, Key: key, Hash: hash,
	})
	if err != nil || claim != nil {
		return claim, err
	}
	switch {
	case earlier.Hash != hash:
		return nil, models.Errorf(models.CodeRequestMismatch, "This Idempotency-Key came with another request before.")
	case earlier.State == store.RequestDone:
		return nil, a.repeat(c, earlier)
	case earlier.Lost:
		what := "The request was carried out, but its answer was lost."
		if earlier.BookingID != "" {
			what = "The request was carried out on the booking " + earlier.BookingID + ", but its answer was lost."
		}
		return nil, models.Errorf(models.CodeAnswerLost, "%s", what)
	default:
		return nil, &models.Error{
			Code: models.CodeRequestRunning, Detail: "A request with this Idempotency-Key is being carried out.", RetryAfter: time.Second,
		}
	}
}

// keptHeaders are the headers that are stored with an answer.
var keptHeaders = []string{"Content-Type", "Retry-After"}

// settle stores an answer, or gives the claim back if a repetition may get another
// answer.
func (a *API) settle(ctx context.Context, claim *store.Claim, kept *keptAnswer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	var err error
	if kept.passing() {
		err = a.Store.Release(ctx, claim)
	} else {
		header := map[string]string{}
		for _, name := range keptHeaders {
			if value := kept.Header().Get(name); value != "" {
				header[name] = value
			}
		}
		var encoded []byte
		if encoded, err = json.Marshal(header); err == nil {
			err = a.Store.Settle(ctx, claim, kept.status, a.answers.Seal(string(encoded)), a.answers.Seal(kept.body.String()))
		}
	}
	if err != nil {
		a.Log.Warn("an answer was not kept; who repeats the request is told so", "requestId", requestID(ctx), "error", err)
	}
}

// repeat writes a stored answer.
func (a *API) repeat(c *gin.Context, earlier store.Earlier) error {
	encoded, err := a.answers.Open(earlier.Header)
	if err != nil {
		return err
	}
	body, err := a.answers.Open(earlier.Body)
	if err != nil {
		return err
	}
	var header map[string]string
	if err := json.Unmarshal([]byte(encoded), &header); err != nil {
		return fmt.Errorf("read a kept answer: %w", err)
	}
	for name, value := range header {
		c.Header(name, value)
	}
	c.Header("Idempotency-Replayed", "true")
	c.Status(earlier.Status)
	if _, err := c.Writer.WriteString(body); err != nil {
		a.Log.Debug("the caller has gone before the answer", "requestId", requestID(c.Request.Context()), "error", err)
	}
	return nil
}

// keptAnswer holds an answer back until it is stored.
type keptAnswer struct {
	gin.ResponseWriter
	status int
	body   bytes.Buffer
	whole  bool // the handler did not panic
	guest  bool // nothing is stored for a guest who is refused
}

// passing reports whether the same request may get another answer later.
func (a *keptAnswer) passing() bool {
	switch a.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		return true
	}
	return !a.whole || a.status >= http.StatusInternalServerError || a.guest && a.status >= http.StatusBadRequest
}

// send writes the answer. After a panic there is none yet.
func (a *keptAnswer) send() {
	if !a.whole {
		return
	}
	a.ResponseWriter.WriteHeader(a.status)
	_, _ = a.ResponseWriter.Write(a.body.Bytes()) // the caller may have gone
}

// Write implements io.Writer.
func (a *keptAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }

// WriteString implements io.StringWriter.
func (a *keptAnswer) WriteString(text string) (int, error) { return a.body.WriteString(text) }

// WriteHeader implements http.ResponseWriter.
func (a *keptAnswer) WriteHeader(status int) { a.status = status }

// WriteHeaderNow implements gin.ResponseWriter.
func (a *keptAnswer) WriteHeaderNow() {}

// Status implements gin.ResponseWriter.
func (a *keptAnswer) Status() int { return a.status }

// Size implements gin.ResponseWriter.
func (a *keptAnswer) Size() int { return a.body.Len() }

// Written implements gin.ResponseWriter.
func (a *keptAnswer) Written() bool { return a.body.Len() > 0 }

// EraseAnswers deletes the stored answers that mention a customer. An answer that
// can't be opened any more counts as one that does not.
func (a *API) EraseAnswers(tx *store.Tx, e *store.DataSubject) error {
	return tx.LoseAnswers(e, func(sealed string) bool {
		body, err := a.answers.Open(sealed)
		return err == nil && slices.ContainsFunc(e.CustomerIDs, func(id string) bool { return strings.Contains(body, id) })
	})
}
