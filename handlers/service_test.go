package handlers_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestProbesAndUnknownRoutesAnswer(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		get := func(path string, header map[string]string) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: path, Header: header})
		}
		assert.Equal(t, "ok", get("/healthz", nil).OK().Str("status"))
		assert.Equal(t, "ready", get("/readyz", nil).OK().Str("status"))
		assert.Contains(t, string(h.Send(nodetest.Request{Method: http.MethodGet, Path: "/metrics", Token: nodetest.BootstrapKey}).OK().Raw), "nowserving_build_info")
		for _, page := range []string{"/", "/docs", "/console", "/join/abc", "/ticket/abc", "/display/abc"} {
			assert.Contains(t, get(page, nil).OK().Header.Get("Content-Type"), "text/html", page)
		}
		assert.Equal(t, "mine-1.a_B", get("/healthz", map[string]string{"X-Request-Id": "mine-1.a_B"}).Header.Get("X-Request-Id"))
		made := get("/healthz", map[string]string{"X-Request-Id": "a b<script>"}).Header.Get("X-Request-Id")
		assert.Regexp(t, `^[0-9a-v]{20}$`, made)
		notFound := get("/management/nothing", nil).Refused(http.StatusNotFound, models.CodeRouteMissing)
		assert.Equal(t, nodetest.PublicURL+"/docs#REQ-NOT_FOUND", notFound.Str("type"))
		wrong := h.Send(nodetest.Request{Method: http.MethodDelete, Path: "/availability/types"}).Refused(http.StatusMethodNotAllowed, models.CodeMethod)
		assert.Equal(t, http.MethodPost, wrong.Header.Get("Allow"))
		get("/management/types/", nil).Refused(http.StatusNotFound, models.CodeRouteMissing)
	})
}

func TestOtherSitesCallOnlyWhenAllowed(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	preflight := func(origin string) nodetest.Response {
		return h.Send(nodetest.Request{Method: http.MethodOptions, Path: "/customer/scheduling/new", Header: map[string]string{
			"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization",
		}})
	}
	allowed := preflight(nodetest.Friend)
	assert.Equal(t, http.StatusNoContent, allowed.Status)
	assert.Equal(t, nodetest.Friend, allowed.Header.Get("Access-Control-Allow-Origin"))
	assert.Contains(t, allowed.Header.Get("Access-Control-Allow-Headers"), "Authorization")
	assert.Empty(t, preflight("https://stranger.example").Header.Get("Access-Control-Allow-Origin"))
	c := h.NewClinic()
	a := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Header: map[string]string{"Origin": nodetest.Friend}}).OK()
	assert.Equal(t, nodetest.Friend, a.Header.Get("Access-Control-Allow-Origin"))
}

// TestWithoutRedisTheQueueGoesOn: the node says that Redis is away, and goes on
// getting requests, for it answers them correctly.
func TestWithoutRedisTheQueueGoesOn(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Postgres)
	c := h.NewClinic()
	kind := c.NewType(nil)
	room := c.NewResource(nil, kind)
	first := c.Join(kind, nil).Str("id")
	h.RedisServer.Stop()
	require.Eventually(t, func() bool {
		a := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/readyz"}).OK()
		return a.Str("status") == "degraded" && slices.Equal(a.WrongFields(), []string{"redis", "queueIndex"})
	}, nodetest.Patience, 20*time.Millisecond)
	h.Send(nodetest.Request{Method: http.MethodGet, Path: "/healthz"}).OK()
	second := c.Join(kind, nil)
	assert.Equal(t, 2, second.Num("queuePosition"))
	assert.Equal(t, first, c.Next(room).OK().Str("result.id"))
	assert.Equal(t, 1, c.Position(second.Str("id")))
	assert.Equal(t, 1, h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID}).OK().Num("result.0.pendingCount"))
	h.RedisServer.Start()
	require.Eventually(t, func() bool {
		return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/readyz"}).OK().Str("status") == "ready"
	}, nodetest.Patience, 20*time.Millisecond)
	assert.Equal(t, 1, c.Position(second.Str("id")))
}

func TestTheDocumentListsEveryErrorCode(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	doc := document(h)
	assert.Equal(t, "3.1.0", doc.Str("openapi"))
	codes := doc.Pluck("x-error-codes", "code")
	require.Len(t, codes, len(models.Failures))
	for i, f := range models.Failures {
		assert.Equal(t, string(f.Code), codes[i])
		assert.Equal(t, f.Remedy, doc.Str(fmt.Sprintf("x-error-codes.%d.remedy", i)))
	}
	schemas := doc.Members("components.schemas")
	assert.NotContains(t, schemas, "ErrorModel")
	assert.Contains(t, schemas, "Problem")
	assert.NotContains(t, string(doc.Raw), "$schema")
	tags := doc.Pluck("tags", "name")
	for path := range doc.Members("paths") {
		for method, op := range operationsAt(doc, path) {
			assert.NotEmpty(t, nodetest.At(op, "summary"), "%s %s", method, path)
			assert.NotEmpty(t, nodetest.At(op, "operationId"), "%s %s", method, path)
			assert.Contains(t, tags, nodetest.At(op, "tags.0"), "%s %s", method, path)
			if nodetest.At(op, "requestBody") != nil {
				assert.NotNil(t, nodetest.At(op, "requestBody.content.application/json.example"), "%s %s has no example", method, path)
			}
		}
	}
	join := nodetest.Response{T: t, Of: "the body", Body: operationsAt(doc, "/management/scheduling/new")}
	schema := schemas[strings.TrimPrefix(join.Str("put.requestBody.content.application/json.schema.$ref"), "#/components/schemas/")]
	for _, field := range []string{"type", "assign", "assignmentTimeout", "priority", "customerIdentifier", "resourceFilters", "note", "bookingInfoCustomFields"} {
		assert.NotNil(t, nodetest.At(schema, "properties."+field), field)
	}
	assert.Equal(t, []any{"type"}, nodetest.At(schema, "required"))
}
