package handlers_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// TestAKeyWithoutTheScopeIsRefused tries every operation that takes keys with keys
// of each scope: one that doesn't reach is refused before anything else is looked
// at.
func TestAKeyWithoutTheScopeIsRefused(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	c := h.NewClinic()
	order := []string{"read", "write", "admin"}
	keys, accountKeys := map[string]string{}, map[string]string{}
	for _, scope := range order {
		body := nodetest.Object{"name": scope, "scopes": []string{scope}}
		keys[scope] = c.Staff(http.MethodPost, nodetest.KeysPath, body).OK().Str("result.key")
		accountKeys[scope] = h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.AccountKeysPath, Token: nodetest.BootstrapKey, Body: body}).OK().Str("result.key")
	}
	doc := document(h)
	counted := map[string]int{}
	for _, op := range operations(h) {
		needed, _ := nodetest.At(operationsAt(doc, op.path)[strings.ToLower(op.method)], "x-scope").(string)
		if needed == "" {
			continue
		}
		counted[needed]++
		assert.Contains(t, nodetest.At(operationsAt(doc, op.path)[strings.ToLower(op.method)], "description"), "an API key needs the scope "+needed)
		for i, scope := range order {
			// Nothing of the kind exists, and the body says nothing: who is let in
			// changes nothing.
			r := nodetest.Request{Method: op.method, Path: regexp.MustCompile(`\{\w+\}`).ReplaceAllString(op.path, "nothing"), App: c.ID, Token: accountKeys[scope]}
			if op.method != http.MethodGet {
				r.Body = "[]"
			}
			a := h.Send(r)
			if i >= strings.Index("read write admin", needed)/5 {
				assert.NotEqual(t, http.StatusForbidden, a.Status, "%s %s with %s: %s", op.method, op.path, scope, a.Raw)
			} else {
				assert.Contains(t, a.Refused(http.StatusForbidden, models.CodeScope).Str("detail"), needed)
			}
		}
	}
	assert.Greater(t, counted["read"], 10)
	assert.Greater(t, counted["write"], 15)
	assert.Greater(t, counted["admin"], 15)

	// The same as a clinic sees it.
	kind := c.Serve(c.NewType(nil))
	with := func(scope, method, path string, body any) nodetest.Response {
		return h.Send(nodetest.Request{Method: method, Path: path, Token: keys[scope], Body: body})
	}
	with("read", http.MethodGet, "/management/types/"+kind, nil).OK()
	with("read", http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nil)).Refused(http.StatusForbidden, models.CodeScope)
	with("write", http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nil)).OK()
	with("write", http.MethodPost, "/management/types", nodetest.Object{"name": "X", "minutes": 5}).OK()
	with("write", http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "more"}).Refused(http.StatusForbidden, models.CodeScope)
	with("admin", http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "more"}).OK()
}
