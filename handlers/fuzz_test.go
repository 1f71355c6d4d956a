package handlers_test

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// fuzzed is an operation that takes a body, and an example of one.
type fuzzed struct {
	operationDoc
	example any
	fields  []string // all that the body may have
}

func fuzzedOf(h *nodetest.Node) []fuzzed {
	h.T.Helper()
	doc := document(h)
	schemas := doc.Members("components.schemas")
	var ops []fuzzed
	for _, op := range operations(h) {
		if op.body {
			body := nodetest.Response{T: h.T, Of: op.path, Body: nodetest.At(operationsAt(doc, op.path)[strings.ToLower(op.method)], "requestBody.content.application/json")}
			schema := schemas[strings.TrimPrefix(body.Str("schema.$ref"), "#/components/schemas/")]
			properties, _ := nodetest.At(schema, "properties").(nodetest.Object)
			ops = append(ops, fuzzed{op, body.At("example"), slices.Sorted(maps.Keys(properties))})
		}
	}
	return ops
}

// fuzzWorld is a clinic with something that every id in a body may mean.
type fuzzWorld struct {
	*filled
	tokens map[string]string // of the credentials that operations name
	known  map[string]string // by the name of the field
}

func newFuzzWorld(h *nodetest.Node) *fuzzWorld {
	c := fill(h)
	mine := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: c.patientToken, Body: nodetest.Joining(c.kind, nil)}).OK()
	c.Staff(http.MethodPost, "/management/webhooks", nodetest.Object{"trigger": "bookingAssigned", "url": "http://127.0.0.1:9/"}).OK()
	return &fuzzWorld{c,
		map[string]string{
			"account key": nodetest.BootstrapKey, "owner": c.Member(models.RoleOwner, "+966500000012"), "customer": c.patientToken, "ticket": mine.Str("result.ticketToken"),
		},
		map[string]string{
			"bookingId": c.waiting, "resourceId": c.room, "resource": c.room, "type": c.kind, "types": c.kind, "customerId": c.person, "url": "http://127.0.0.1:9/",
			"rescheduleBookingId": c.mine, "phoneNumber": "+966500000012", "code": nodetest.FixedCode, "date": nodetest.Day(3),
		},
	}
}

// request makes a request of an operation, as somebody who may.
func (w *fuzzWorld) request(op fuzzed, body []byte) nodetest.Request {
	r := nodetest.Request{Method: op.method, App: w.ID, Body: body}
	for _, who := range []string{"account key", "customer", "owner"} {
		if slices.Contains(op.who, who) {
			r.Token = w.tokens[who]
			break
		}
	}
	r.Path = op.path
	for name, id := range map[string]string{
		"{bookingId}": w.waiting, "{resourceId}": w.room, "{customerId}": w.person,
		"{id}": map[bool]string{true: w.kind, false: w.ID}[strings.Contains(op.path, "/types/")],
	} {
		r.Path = strings.ReplaceAll(r.Path, name, id)
	}
	return r
}

// odd are values that programs stumble over.
var odd = []any{
	nil, true, "", " ", "\u0000", "\u202e", "é", strings.Repeat("ن", 300), "2026-02-30", "2023-01-11", "+966500000001", "a@b.c", "-1", "0", "1e9", "%00", "../..", "'; --",
	0, -1, 1, 1.5, 1e308, 9007199254740993, json.Number("1e999"), json.Number("99999999999999999999"), []any{}, []any{nil}, nodetest.Object{}, nodetest.Object{"": ""},
	json.RawMessage(strings.Repeat("[", 200) + strings.Repeat("]", 200)), json.RawMessage(`"\ud800"`), json.RawMessage(`{"a":1,"a":2}`),
}

// twister changes JSON here and there: names mean what the world knows by them,
// and odd values stand where there were others, or where there was nothing.
type twister struct {
	*rand.Rand
	world  *fuzzWorld
	values int // there are about so many; one or two are changed
}

func (w *fuzzWorld) twist(seed []byte, op fuzzed, example any) any {
	hash := fnv.New64a()
	_, _ = hash.Write(seed) // it never fails
	t := twister{rand.New(rand.NewPCG(hash.Sum64(), 0)), w, strings.Count(fmt.Sprint(example), ":") + 1}
	twisted := t.value("", example)
	if body, ok := twisted.(nodetest.Object); ok && len(op.fields) > 0 && t.IntN(2) == 0 {
		body[op.fields[t.IntN(len(op.fields))]] = t.odd()
	}
	return twisted
}

func (t twister) odd() any { return odd[t.IntN(len(odd))] }

func (t twister) value(name string, v any) any {
	if t.IntN(t.values*20) == 0 {
		return []any{t.odd(), nodetest.Object{"id": v}, []any{v}}[t.IntN(3)]
	}
	switch v := v.(type) {
	case nodetest.Object:
		twisted := nodetest.Object{}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if t.IntN(t.values*5) > 0 {
				twisted[key] = t.value(key, v[key])
			}
		}
		return twisted
	case []any:
		twisted := make([]any, 0, len(v)+1)
		for _, item := range v {
			twisted = append(twisted, t.value(name, item))
		}
		if len(v) > 0 && t.IntN(4) == 0 {
			twisted = append(twisted, v[0])
		}
		return twisted
	}
	if t.IntN(t.values) == 0 {
		return t.scalar(v)
	}
	if known := t.world.known[name]; known != "" {
		return known
	}
	return v
}

func (t twister) scalar(v any) any {
	switch v := v.(type) {
	case string:
		if text := []rune(v); len(text) > 0 && t.IntN(2) == 0 {
			text[t.IntN(len(text))] = rune(t.IntN(0x2000))
			return string(text)
		}
	case float64:
		if t.IntN(2) == 0 {
			return v * (t.Float64()*20 - 10)
		}
	}
	return t.odd()
}

// worldLife is after how many requests there is not much left to be done.
const worldLife = 150

// FuzzBodies sends every operation that takes a body one that it may not
// expect, as somebody who may: its example, changed by name and value where
// there is a seed, or any bytes. Whatever comes, the answer says what was wrong
// with it; it never is that something went wrong on our side.
func FuzzBodies(f *testing.F) {
	h := nodetest.Start(f, nodetest.Embedded, func(c *node.Config) { c.WebhookAllowPrivate = true })
	ops := fuzzedOf(h)
	world, asked := newFuzzWorld(h), 0
	for i, op := range ops {
		require.NotNil(f, op.example, op.path)
		example, err := json.Marshal(op.example)
		require.NoError(f, err)
		for _, seed := range []string{"", "a seed", "another", "one more"} {
			f.Add(uint16(i), []byte(seed), example)
		}
	}
	for _, body := range []string{"", "null", "[]", "{", "\xff", "\"\\u0000\"", "1e999", strings.Repeat("[", 10_001)} {
		f.Add(uint16(len(body)), []byte{}, []byte(body))
	}
	f.Fuzz(func(t *testing.T, operation uint16, seed, body []byte) {
		h.T = t
		if asked++; asked%worldLife == 0 {
			world = newFuzzWorld(h)
		}
		op := ops[int(operation)%len(ops)]
		var value any
		if len(seed) > 0 && json.Unmarshal(body, &value) == nil {
			twisted, err := json.Marshal(world.twist(seed, op, value))
			if err == nil {
				body = twisted
			}
		}
		a, err := h.Try(world.request(op, body))
		require.NoError(t, err)
		require.Less(t, a.Status, http.StatusInternalServerError, "%s %s of %s: %s", op.method, op.path, body, a.Raw)
		if a.Status != http.StatusOK {
			assert.Equal(t, "application/problem+json", a.Header.Get("Content-Type"))
			assert.NotEmpty(t, a.Str("code"))
			assert.NotEqual(t, string(models.CodeTooManyRequests), a.Str("code")) // a phone may have got its five codes
		}
	})
}
