package nodetest

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

// Contract is a document of the service, against which JSON is checked.
type Contract struct {
	document Object

	mu       sync.Mutex // of the compiler
	compiler *jsonschema.Compiler
}

// NewContract reads an OpenAPI document.
func NewContract(t testing.TB, document []byte) *Contract {
	t.Helper()
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	require.NoError(t, err)
	closed(parsed)
	c := &Contract{compiler: jsonschema.NewCompiler()}
	c.document, _ = parsed.(Object)
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
	case Object:
		if v["additionalProperties"] == true {
			v["additionalProperties"] = false
		}
		for _, member := range v {
			closed(member)
		}
	}
}

// Check requires a value to be as the schema at a place in the document says.
func (c *Contract) Check(t testing.TB, of string, value []byte, place ...string) {
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
func (c *Contract) find(place ...string) (value any, found []string) {
	value = c.document
	for _, name := range place {
		value = At1(value, name)
		found = append(found, name)
		if ref, ok := At1(value, "$ref").(string); ok {
			value, found = c.find(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
	}
	return value, found
}

// At1 is a member of an object, nil where there is none.
func At1(value any, name string) any {
	members, _ := value.(Object)
	return members[name]
}

// Resolve follows the reference that something in the document may be.
func (a Response) Resolve(value any) any {
	a.T.Helper()
	ref, ok := At1(value, "$ref").(string)
	if !ok {
		return value
	}
	target := a.At(strings.ReplaceAll(strings.TrimPrefix(ref, "#/"), "/", "."))
	require.NotNil(a.T, target, "%s leads nowhere", ref)
	return target
}

// pathOf is the path of the document that a request went to, "" where it has none.
func (c *Contract) pathOf(asked string) string {
	segments := strings.Split(asked, "/")
	found, most := "", -1
	paths, _ := c.document["paths"].(Object)
	for path := range paths {
		parts := strings.Split(path, "/")
		literal := 0
		for i := range parts {
			parameter, suffix, _ := strings.Cut(parts[i], "}")
			switch isParameter := strings.HasPrefix(parameter, "{"); {
			case len(parts) != len(segments):
				literal = -1
			case literal >= 0 && isParameter && suffix != "" && strings.HasSuffix(segments[i], suffix): // "{id}.ics" before "{id}"
				literal++
			case literal < 0 || isParameter && suffix == "":
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

// keepsContract requires an answer of the API to be as the document says. A remote node
// is not checked.
func (h *Node) keepsContract(r Request, a Response) {
	h.T.Helper()
	if h.API == nil {
		return
	}
	apiContractOnce.Do(func() {
		document, err := h.API.OpenAPI() // a request for it would be counted
		require.NoError(h.T, err)
		apiContract = NewContract(h.T, document)
	})
	asked, _, _ := strings.Cut(r.Path, "?")
	path := apiContract.pathOf(asked)
	if op, _ := apiContract.find("paths", path, strings.ToLower(r.Method)); path == "" || op == nil {
		return
	}
	response, place := apiContract.find("paths", path, strings.ToLower(r.Method), "responses", strconv.Itoa(a.Status))
	require.NotNil(h.T, response, "%s: the document knows no status %d", a.Of, a.Status)
	kind, _, _ := strings.Cut(a.Header.Get("Content-Type"), ";")
	if len(a.Raw) == 0 && a.Status == http.StatusNotModified {
		return
	}
	if !strings.HasSuffix(kind, "json") {
		media, _ := apiContract.find(append(place, "content", kind)...)
		assert.NotNil(h.T, media, "%s: the document knows no %s", a.Of, kind)
		return
	}
	apiContract.Check(h.T, a.Of, a.Raw, append(place, "content", kind, "schema")...)
	if kind == "application/json" {
		h.writesMoments(a.Of, "", a.Body)
	}
}

// freeForm are the members that hold what a caller wrote.
var freeForm = []string{"info", "data", "meta", "businessCustomConfig", "note", "reason", "payload", "name", "schedule", "timeOptions"}

// writesMoments requires every moment in an answer to be written in one form.
func (h *Node) writesMoments(of, member string, value any) {
	h.T.Helper()
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			h.writesMoments(of, member, item)
		}
	case Object:
		for name, item := range v {
			if !slices.Contains(freeForm, name) {
				h.writesMoments(of, name, item)
			}
		}
	case string:
		assert.True(h.T, !anyMoment.MatchString(v) || oneMoment.MatchString(v), "%s: %s is %s", of, member, v)
	}
}

var (
	apiContract     *Contract
	apiContractOnce sync.Once
)

var (
	anyMoment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d`)
	oneMoment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`)
)
