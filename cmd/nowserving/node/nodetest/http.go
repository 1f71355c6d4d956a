package nodetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// Request describes an HTTP request.
type Request struct {
	Method, Path string
	Token        string // Authorization: Bearer
	App          string // X-APP-ID
	Lang         string
	Body         any // a string or []byte is sent as it is, anything else as JSON
	Header       map[string]string
	Chunked      bool
}

// Send makes a request and reads the response, which must be as the API document says.
func (h *Node) Send(r Request) Response {
	h.T.Helper()
	a, err := h.Try(r)
	require.NoError(h.T, err)
	h.keepsContract(r, a)
	return a
}

// Try is Send for other goroutines than the test's. It does not check the response.
func (h *Node) Try(r Request) (Response, error) {
	var body io.Reader
	switch b := r.Body.(type) {
	case nil:
	case string:
		body = strings.NewReader(b)
	case []byte:
		body = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return Response{}, err
		}
		body = bytes.NewReader(encoded)
	}
	if r.Chunked {
		body = struct{ io.Reader }{body} // its length can't be seen
	}
	req, err := http.NewRequestWithContext(context.Background(), r.Method, h.URL+r.Path, body)
	if err != nil {
		return Response{}, err
	}
	for name, value := range map[string]string{"X-APP-ID": r.App, "lang": r.Lang} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if r.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.Token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.Header {
		req.Header.Set(name, value)
	}
	res, err := h.Client.Do(req)
	if err != nil {
		return Response{}, err
	}
	raw, err := io.ReadAll(res.Body)
	if closing := res.Body.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return Response{}, err
	}
	a := Response{T: h.T, Status: res.StatusCode, Header: res.Header, Close: res.Close, Raw: raw, Of: r.Method + " " + r.Path}
	if len(raw) > 0 && strings.Contains(res.Header.Get("Content-Type"), "json") {
		if err := json.Unmarshal(raw, &a.Body); err != nil {
			return Response{}, fmt.Errorf("%s answered no JSON: %w", a.Of, err)
		}
	}
	if res.StatusCode == http.StatusOK {
		h.mu.Lock()
		path, _, _ := strings.Cut(r.Path, "?")
		h.Visited[r.Method+" "+path] = true
		h.mu.Unlock()
	}
	return a, nil
}

// Response is the response to a request.
type Response struct {
	T      testing.TB
	Of     string // the method and path of the request
	Status int
	Header http.Header
	Close  bool // the answer had Connection: close
	Raw    []byte
	Body   any
}

// OK requires success.
func (a Response) OK() Response {
	a.T.Helper()
	require.Equal(a.T, http.StatusOK, a.Status, "%s: %s", a.Of, a.Raw)
	return a
}

// Refused requires a problem document with a status and a code.
func (a Response) Refused(status int, code models.Code) Response {
	a.T.Helper()
	require.Equal(a.T, status, a.Status, "%s: %s", a.Of, a.Raw)
	require.Equal(a.T, "application/problem+json", a.Header.Get("Content-Type"), a.Of)
	require.Equal(a.T, string(code), a.Str("code"), "%s: %s", a.Of, a.Raw)
	assert.Equal(a.T, status, a.Num("status"), a.Of)
	assert.NotEmpty(a.T, a.Str("detail"), a.Of)
	assert.NotEmpty(a.T, a.Str("title"), a.Of)
	assert.Equal(a.T, a.Header.Get("X-Request-Id"), a.Str("requestId"), a.Of)
	return a
}

// At finds a value by its path, "result.customer.id"; nil where there is none.
func (a Response) At(path string) any { return At(a.Body, path) }

// At finds a value of a JSON document by its path, such as "result.0.id"; nil if there is
// none.
func At(value any, path string) any {
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

// Members returns the object at a path.
func (a Response) Members(path string) Object {
	a.T.Helper()
	members, ok := a.At(path).(Object)
	require.True(a.T, ok, "%s has no object %s", a.Of, path)
	return members
}

// Str returns the string at a path, or "".
func (a Response) Str(path string) string {
	text, _ := a.At(path).(string)
	return text
}

// Num returns the whole number at a path.
func (a Response) Num(path string) int {
	a.T.Helper()
	number, ok := a.At(path).(float64)
	require.True(a.T, ok && number == math.Trunc(number), "%s has no whole number %s: %s", a.Of, path, a.Raw)
	return int(number)
}

// List returns the array at a path.
func (a Response) List(path string) []any {
	a.T.Helper()
	items, ok := a.At(path).([]any)
	require.True(a.T, ok, "%s has no list %s: %s", a.Of, path, a.Raw)
	return items
}

// Pluck returns one member of each item of an array.
func (a Response) Pluck(list, field string) []string {
	a.T.Helper()
	var values []string
	for _, item := range a.List(list) {
		values = append(values, fmt.Sprint(At(item, field)))
	}
	return values
}

// Object is a JSON object.
type Object = map[string]any

// WrongFields lists the fields that a problem document names.
func (a Response) WrongFields() []string {
	if a.At("errors") == nil {
		return nil
	}
	return a.Pluck("errors", "field")
}

// Unchanged makes a request that must change nothing.
func (h *Node) Unchanged(r Request) Response {
	h.T.Helper()
	before := h.Contents()
	a := h.Send(r)
	require.Equal(h.T, before, h.Contents(), "%s %s changed the database", r.Method, r.Path)
	return a
}
