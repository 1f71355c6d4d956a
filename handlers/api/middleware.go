package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// requestTimeout is the default of Options.Timeout.
	requestTimeout = 15 * time.Second
	// bodyTimeout bounds how long a client may take to send a body.
	bodyTimeout = 10 * time.Second
	// largeTimeout is how much longer a body of more than MaxBody may take.
	largeTimeout = 45 * time.Second
	// answerTimeout is how long a client may take to read the answer after a large body,
	// and the request to make it.
	answerTimeout = 30 * time.Second
	// MaxBody bounds a request's body, in bytes, unless its operation takes more.
	MaxBody int64 = 1 << 20
	// maxValues bounds the values of a body: validation takes about 10 µs for each.
	maxValues = 10_000
	// maxRequestID bounds a request id that the client chose, in bytes.
	maxRequestID = 64
)

// LivePath is where clients open live connections. They have no deadline.
const LivePath = "/connection/websocket"

type contextKey int

const (
	keyRequestID contextKey = iota
	keyLang
	keyCaller
)

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(keyRequestID).(string)
	return id
}

func langOf(ctx context.Context) string {
	lang, _ := ctx.Value(keyLang).(string)
	return lang
}

// Language returns the supported language that is nearest to a language tag: ar for
// ar, AR, ar-SA, ar_SA.UTF-8 or a list that begins with one of them, otherwise en.
func Language(asked string) string {
	primary := strings.FieldsFunc(strings.ToLower(asked), func(r rune) bool { return !unicode.IsLetter(r) })
	if len(primary) > 0 && (primary[0] == "ar" || primary[0] == "ara") {
		return "ar"
	}
	return "en"
}

// identify gives the request an id, by default a new one, and logs its end. It logs
// the route's pattern, because paths, queries and headers may hold secrets or names.
func (a *API) identify(c *gin.Context) {
	began := time.Now()
	id := c.GetHeader("X-Request-Id")
	if !saneID(id) {
		id = models.NewID()
	}
	c.Header("X-Request-Id", id)
	if a.stopping.Load() {
		c.Header("Connection", "close")
	}
	if forwarded := c.Request.Header.Values(forwardedFor); len(forwarded) > 0 {
		c.Request.Header.Set(forwardedFor, withoutPorts(strings.Join(forwarded, ",")))
	}
	ctx := context.WithValue(c.Request.Context(), keyRequestID, id)
	c.Request = c.Request.WithContext(context.WithValue(ctx, keyLang, Language(c.GetHeader("lang"))))
	c.Next()

	route := c.FullPath()
	log := a.Log.Info
	if c.Request.Method == http.MethodGet && c.Writer.Status() < http.StatusInternalServerError || route == "" {
		log = a.Log.Debug
	}
	log("request", "method", c.Request.Method, "route", route, "status", c.Writer.Status(),
		"ms", float64(time.Since(began).Microseconds())/1000, "requestId", id)
}

// forwardedFor is the header in which proxies name the addresses before them.
const forwardedFor = "X-Forwarded-For"

// withoutPorts removes the ports from a list of addresses. Some proxies write them,
// and the framework ignores such an address.
func withoutPorts(list string) string {
	addresses := strings.Split(list, ",")
	for i, address := range addresses {
		address = strings.TrimSpace(address)
		if pair, err := netip.ParseAddrPort(address); err == nil {
			address = pair.Addr().String()
		} else if inside, ok := strings.CutPrefix(address, "["); ok {
			address = strings.TrimSuffix(inside, "]")
		}
		addresses[i] = address
	}
	return strings.Join(addresses, ", ")
}

func saneID(id string) bool {
	return id != "" && len(id) <= maxRequestID && strings.IndexFunc(id, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_' && r != '.'
	}) < 0
}

// recover answers 500 if a handler panics.
func (a *API) recover(c *gin.Context) {
	defer func() {
		cause := recover()
		if cause == nil {
			return
		}
		if err, ok := cause.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(cause) // net/http's way to cut a connection
		}
		if err, ok := cause.(error); ok && c.Writer.Written() && c.Request.Context().Err() != nil {
			a.Log.Debug("the caller has gone before the answer", "requestId", requestID(c.Request.Context()), "error", err)
			c.Abort()
			return
		}
		a.Log.Error("a handler panicked", "requestId", requestID(c.Request.Context()), "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
		if c.Writer.Written() {
			c.Abort()
			return
		}
		WriteProblem(c, a.ProblemOf(c.Request.Context(), models.Errorf(models.CodeInternal, "Something went wrong on our side.")))
	}()
	c.Next()
}

// limitTime gives every request but a live connection a deadline. Until the
// organization is known, the request shares the database budget of unknown
// organizations.
func (a *API) limitTime(c *gin.Context) {
	ctx := store.ForOrganization(c.Request.Context(), "")
	if c.FullPath() != LivePath {
		var cancel context.CancelFunc
		limit := a.Timeout
		if a.isLarge(c) {
			limit += largeTimeout
		}
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}

// isLarge reports whether a request has a body larger than MaxBody, or of an unknown
// length, and its operation takes one.
func (a *API) isLarge(c *gin.Context) bool {
	length := c.Request.ContentLength
	return (length > MaxBody || length < 0) && a.large[c.Request.Method+" "+c.FullPath()]
}

// checkAddress refuses a URL with text that no database stores.
func (a *API) checkAddress(c *gin.Context) {
	query, err := url.ParseQuery(c.Request.URL.RawQuery)
	clean := IsText(c.Request.URL.Path) && IsText(c.GetHeader("X-APP-ID"))
	for name, values := range query {
		clean = clean && IsText(name) && !slices.ContainsFunc(values, func(v string) bool { return !IsText(v) })
	}
	if err != nil || !clean {
		a.refuse(models.CodeMalformed, "The address holds something that is not text in UTF-8.")(c)
		return
	}
	c.Next()
}

// IsText reports whether a database can store the text: UTF-8 without NUL.
func IsText(text string) bool { return utf8.ValidString(text) && !strings.Contains(text, "\x00") }

// readBody reads the body before the framework does, so that a body that is too large
// and one that is not JSON in UTF-8 get different errors.
func (a *API) readBody(limit int64) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) { a.readBodyUpTo(limit, ctx, next) }
}

func (a *API) readBodyUpTo(limit int64, ctx huma.Context, next func(huma.Context)) {
	c := humagin.Unwrap(ctx)
	body, err := a.ReadBody(c, limit)
	if err != nil {
		a.WriteError(c, err)
		return
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}") // so that what is missing is named
	}
	if !utf8.Valid(body) {
		a.WriteError(c, models.Errorf(models.CodeMalformed, "The body is not UTF-8."))
		return
	}
	if !json.Valid(body) {
		a.WriteError(c, models.Errorf(models.CodeMalformed, "The body is not one JSON value."))
		return
	}
	if hasTooManyValues(body) {
		a.WriteError(c, models.Errorf(models.CodeTooLarge, "The body has more than %d values.", maxValues))
		return
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(body))
	c.Request.Header.Set("Content-Type", "application/json")
	next(ctx)
}

// hasTooManyValues reports whether a valid body has more than maxValues members,
// items and values.
func hasTooManyValues(body []byte) bool {
	values := json.NewDecoder(bytes.NewReader(body))
	for range 2 * maxValues { // a member is two tokens: its name and its value
		if _, err := values.Token(); err != nil {
			return false // the end
		}
	}
	return true
}

// ReadBody reads a request's body of at most limit bytes. It fails with CodeTooLarge
// and CodeMalformed.
func (a *API) ReadBody(c *gin.Context, limit int64) ([]byte, error) {
	tooLarge := models.Errorf(models.CodeTooLarge, "The body is larger than %d MiB.", limit>>20)
	if c.Request.ContentLength > limit {
		return nil, tooLarge
	}
	now, patience := time.Now(), bodyTimeout
	control := http.NewResponseController(c.Writer)
	if limit > MaxBody && a.isLarge(c) {
		patience += largeTimeout
		if err := control.SetWriteDeadline(now.Add(patience + answerTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return nil, err
		}
	}
	if err := control.SetReadDeadline(now.Add(patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, limit))
	if _, beyond := errors.AsType[*http.MaxBytesError](err); beyond {
		return nil, tooLarge
	}
	if err != nil {
		return nil, models.Errorf(models.CodeMalformed, "The body did not arrive whole.")
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, err
	}
	return body, nil
}
