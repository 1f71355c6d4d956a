package handlers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
)

// TestEveryAnswerDocumentsItsRequiredMembers finds members that answers never omit
// among the required ones; keepsContract finds those that are wrongly there.
func TestEveryAnswerDocumentsItsRequiredMembers(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	doc := document(h)
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
		required, _ := doc.At("components.schemas." + schema + ".required").([]any)
		assert.Len(t, required, len(members), schema)
		for _, name := range members {
			assert.Contains(t, required, name, schema)
		}
	}
	assert.Equal(t, []any{"string", "null"}, doc.At("components.schemas.Pagination.properties.nextPageToken.type"))
	asked, answered := map[string]bool{}, map[string]bool{}
	for path := range doc.Members("paths") {
		for _, op := range operationsAt(doc, path) {
			schemasOf(doc, nodetest.At(op, "requestBody"), asked)
			schemasOf(doc, nodetest.At(op, "responses"), answered)
		}
	}
	for name := range answered {
		assert.False(t, asked[name], "%s is in a request and in an answer, which need not hold the same", name)
	}
}

// schemasOf collects the names of the schemas that a part of the document uses.
func schemasOf(a nodetest.Response, value any, found map[string]bool) {
	a.T.Helper()
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			schemasOf(a, item, found)
		}
	case nodetest.Object:
		if ref, ok := v["$ref"].(string); ok {
			name, isSchema := strings.CutPrefix(ref, "#/components/schemas/")
			if isSchema && found[name] {
				return
			}
			if isSchema {
				found[name] = true
			}
			schemasOf(a, a.Resolve(v), found)
		}
		for _, member := range v {
			schemasOf(a, member, found)
		}
	}
}

func TestProblemsNameTheirCodeAndItsAddress(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		doc := document(h)
		assert.Equal(t, doc.Pluck("x-error-codes", "code"), plain(doc.List("components.schemas.Problem.properties.code.enum")))
		refused := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types"})
		assert.Equal(t, nodetest.PublicURL+"/docs#"+refused.Str("code"), refused.Str("type"))
	})
}

func plain(values []any) []string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i], _ = v.(string)
	}
	return texts
}
