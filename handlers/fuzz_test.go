package handlers_test

import (
	"nowserving/cmd/nowserving/node"

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

	"nowserving/models"
)

// fuzzed is an operation that takes a body, and an example of one.
type fuzzed struct {
	operationDoc
	example any
	fields  []string // all that the body may have
}

func (h *house) fuzzed() []fuzzed {
	h.t.Helper()
	doc := h.document()
	schemas := doc.members("components.schemas")
	var ops []fuzzed
	for _, op := range h.operations() {
		if op.body {
			body := answer{t: h.t, of: op.path, body: at(doc.operationsAt(op.path)[strings.ToLower(op.method)], "requestBody.content.application/json")}
			schema := schemas[strings.TrimPrefix(body.str("schema.$ref"), "#/components/schemas/")]
			properties, _ := at(schema, "properties").(object)
			ops = append(ops, fuzzed{op, body.at("example"), slices.Sorted(maps.Keys(properties))})
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

func newFuzzWorld(h *house) *fuzzWorld {
	c := h.fill()
	mine := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: c.patientToken, body: joining(c.kind, nil)}).ok()
	c.staff(http.MethodPost, "/management/webhooks", object{"trigger": "bookingAssigned", "url": "http://127.0.0.1:9/"}).ok()
	return &fuzzWorld{c,
		map[string]string{
			"account key": bootstrapKey, "owner": c.member(models.RoleOwner, "+966500000012"), "customer": c.patientToken, "ticket": mine.str("result.ticketToken"),
		},
		map[string]string{
			"bookingId": c.waiting, "resourceId": c.room, "resource": c.room, "type": c.kind, "types": c.kind, "customerId": c.person, "url": "http://127.0.0.1:9/",
			"rescheduleBookingId": c.mine, "phoneNumber": "+966500000012", "code": fixedCode, "date": day(3),
		},
	}
}

// request makes a request of an operation, as somebody who may.
func (w *fuzzWorld) request(op fuzzed, body []byte) request {
	r := request{method: op.method, app: w.id, body: body}
	for _, who := range []string{"account key", "customer", "owner"} {
		if slices.Contains(op.who, who) {
			r.token = w.tokens[who]
			break
		}
	}
	r.path = op.path
	for name, id := range map[string]string{
		"{bookingId}": w.waiting, "{resourceId}": w.room, "{customerId}": w.person,
		"{id}": map[bool]string{true: w.kind, false: w.id}[strings.Contains(op.path, "/types/")],
	} {
		r.path = strings.ReplaceAll(r.path, name, id)
	}
	return r
}

// odd are values that programs stumble over.
var odd = []any{
	nil, true, "", " ", "\u0000", "\u202e", "é", strings.Repeat("ن", 300), "2026-02-30", "2023-01-11", "+966500000001", "a@b.c", "-1", "0", "1e9", "%00", "../..", "'; --",
	0, -1, 1, 1.5, 1e308, 9007199254740993, json.Number("1e999"), json.Number("99999999999999999999"), []any{}, []any{nil}, object{}, object{"": ""},
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
	if body, ok := twisted.(object); ok && len(op.fields) > 0 && t.IntN(2) == 0 {
		body[op.fields[t.IntN(len(op.fields))]] = t.odd()
	}
	return twisted
}

func (t twister) odd() any { return odd[t.IntN(len(odd))] }

func (t twister) value(name string, v any) any {
	if t.IntN(t.values*20) == 0 {
		return []any{t.odd(), object{"id": v}, []any{v}}[t.IntN(3)]
	}
	switch v := v.(type) {
	case object:
		twisted := object{}
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
	h := newHouse(f, embedded, func(c *node.Config) { c.WebhookAllowPrivate = true })
	ops := h.fuzzed()
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
		h.t = t
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
		a, err := h.try(world.request(op, body))
		require.NoError(t, err)
		require.Less(t, a.status, http.StatusInternalServerError, "%s %s of %s: %s", op.method, op.path, body, a.raw)
		if a.status != http.StatusOK {
			assert.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
			assert.NotEmpty(t, a.str("code"))
			assert.NotEqual(t, string(models.CodeTooManyRequests), a.str("code")) // a phone may have got its five codes
		}
	})
}
