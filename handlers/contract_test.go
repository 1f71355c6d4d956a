package handlers_test

import (
	"bytes"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// contract is a document of the service, against which JSON is checked.
type contract struct {
	document object

	mu       sync.Mutex // of the compiler
	compiler *jsonschema.Compiler
}

func newContract(t testing.TB, document []byte) *contract {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	require.NoError(t, err)
	closed(parsed)
	c := &contract{compiler: jsonschema.NewCompiler()}
	c.document, _ = parsed.(object)
	c.compiler.AssertFormat()
	require.NoError(t, c.compiler.AddResource("document.json", parsed))
	return c
}

// closed lets no schema of a document have members that it does not name. Clients
// are to bear with new ones, but none is sent that is not in the document.
func closed(value any) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			closed(item)
		}
	case object:
		if v["additionalProperties"] == true {
			v["additionalProperties"] = false
		}
		for _, member := range v {
			closed(member)
		}
	}
}

// check requires a value to be as the schema at a place in the document says.
func (c *contract) check(t testing.TB, of string, value []byte, place ...string) {
	t.Helper()
	c.mu.Lock()
	schema, err := c.compiler.Compile("document.json#" + pointer(place))
	c.mu.Unlock()
	require.NoError(t, err)
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	require.NoError(t, err)
	assert.NoError(t, schema.Validate(parsed), "%s: %s", of, value)
}

// pointer is a JSON pointer in the fragment of a URL.
func pointer(place []string) string {
	var all strings.Builder
	for _, name := range place {
		all.WriteString("/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name)))
	}
	return all.String()
}

// find follows a place in the document, and references on the way, and returns
// what is there, with the place that was found.
func (c *contract) find(place ...string) (value any, found []string) {
	value = c.document
	for _, name := range place {
		value = at1(value, name)
		found = append(found, name)
		if ref, ok := at1(value, "$ref").(string); ok {
			value, found = c.find(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
	}
	return value, found
}

// at1 is a member of an object, nil where there is none.
func at1(value any, name string) any {
	members, _ := value.(object)
	return members[name]
}

// resolve follows the reference that something in the document may be.
func (a answer) resolve(value any) any {
	a.t.Helper()
	ref, ok := at1(value, "$ref").(string)
	if !ok {
		return value
	}
	target := a.at(strings.ReplaceAll(strings.TrimPrefix(ref, "#/"), "/", "."))
	require.NotNil(a.t, target, "%s leads nowhere", ref)
	return target
}

// pathOf is the path of the document that a request went to, "" where it has none.
func (c *contract) pathOf(asked string) string {
	segments := strings.Split(asked, "/")
	found, most := "", -1
	paths, _ := c.document["paths"].(object)
	for path := range paths {
		parts := strings.Split(path, "/")
		literal := 0
		for i := range parts {
			switch {
			case len(parts) != len(segments):
				literal = -1
			case literal < 0 || strings.HasPrefix(parts[i], "{"):
			case parts[i] == segments[i]:
				literal++
			default:
				literal = -1
			}
		}
		if literal > most { // "/resources/mine" before "/resources/{id}"
			found, most = path, literal
		}
	}
	return found
}

var (
	apiContract     *contract
	apiContractOnce sync.Once
)

// keepsContract requires an answer of the API to be as the document says.
func (h *house) keepsContract(r request, a answer) {
	h.t.Helper()
	apiContractOnce.Do(func() {
		document, err := h.Handlers.Document() // a request for it would be counted
		require.NoError(h.t, err)
		apiContract = newContract(h.t, document)
	})
	asked, _, _ := strings.Cut(r.path, "?")
	path := apiContract.pathOf(asked)
	if op, _ := apiContract.find("paths", path, strings.ToLower(r.method)); path == "" || op == nil {
		return
	}
	response, place := apiContract.find("paths", path, strings.ToLower(r.method), "responses", strconv.Itoa(a.status))
	require.NotNil(h.t, response, "%s: the document knows no status %d", a.of, a.status)
	kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	apiContract.check(h.t, a.of, a.raw, append(place, "content", kind, "schema")...)
	if kind == "application/json" {
		h.writesMoments(a.of, "", a.body)
	}
}

var (
	anyMoment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d`)
	oneMoment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
)

// freeForm are the members that hold what a caller wrote.
var freeForm = []string{"info", "data", "meta", "businessCustomConfig", "note", "reason", "payload", "name", "schedule", "timeOptions"}

// writesMoments requires every moment in an answer to be written in one form.
func (h *house) writesMoments(of, member string, value any) {
	h.t.Helper()
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			h.writesMoments(of, member, item)
		}
	case object:
		for name, item := range v {
			if !slices.Contains(freeForm, name) {
				h.writesMoments(of, name, item)
			}
		}
	case string:
		assert.True(h.t, !anyMoment.MatchString(v) || oneMoment.MatchString(v), "%s: %s is %s", of, member, v)
	}
}

// TestEveryAnswerSaysWhatIsAlwaysThere finds members that answers never omit
// among the required ones; keepsContract finds those that are wrongly there.
func TestEveryAnswerSaysWhatIsAlwaysThere(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	doc := h.document()
	for schema, members := range map[string][]string{
		"BookingView":       {"id", "status", "ticket", "typeId", "customerId", "priority", "createdAt", "recallCount", "info", "display", "version"},
		"ResultBookingView": {"result"},
		"ListBookingView":   {"result", "pagination"},
		"Pagination":        {"nextPageToken", "hasMore"},
		"Problem":           {"type", "title", "status", "detail", "code", "requestId"},
		"ListTypeView":      {"result", "pagination"},
		"WebhookView":       {"id", "trigger", "url", "reference", "createdAt"},
		"SessionView":       {"accessTokenExpiresAt", "user"},
	} {
		required, _ := doc.at("components.schemas." + schema + ".required").([]any)
		assert.Len(t, required, len(members), schema)
		for _, name := range members {
			assert.Contains(t, required, name, schema)
		}
	}
	assert.Equal(t, []any{"string", "null"}, doc.at("components.schemas.Pagination.properties.nextPageToken.type"))
	asked, answered := map[string]bool{}, map[string]bool{}
	for path := range doc.members("paths") {
		for _, op := range doc.operationsAt(path) {
			doc.schemasOf(at(op, "requestBody"), asked)
			doc.schemasOf(at(op, "responses"), answered)
		}
	}
	for name := range answered {
		assert.False(t, asked[name], "%s is in a request and in an answer, which need not hold the same", name)
	}
}

// schemasOf collects the names of the schemas that a part of the document uses.
func (a answer) schemasOf(value any, found map[string]bool) {
	a.t.Helper()
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			a.schemasOf(item, found)
		}
	case object:
		if ref, ok := v["$ref"].(string); ok {
			name, isSchema := strings.CutPrefix(ref, "#/components/schemas/")
			if isSchema && found[name] {
				return
			}
			if isSchema {
				found[name] = true
			}
			a.schemasOf(a.resolve(v), found)
		}
		for _, member := range v {
			a.schemasOf(member, found)
		}
	}
}

func TestProblemsNameTheirCodeAndItsAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		doc := h.document()
		assert.Equal(t, doc.pluck("x-error-codes", "code"), plain(doc.list("components.schemas.Problem.properties.code.enum")))
		refused := h.send(request{method: http.MethodGet, path: "/management/types"})
		assert.Equal(t, publicURL+"/docs#"+refused.str("code"), refused.str("type"))
	})
}

func plain(values []any) []string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i], _ = v.(string)
	}
	return texts
}
