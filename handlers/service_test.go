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

	"nowserving/models"
)

func TestProbesAndUnknownRoutesAnswer(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		get := func(path string, header map[string]string) answer {
			return h.send(request{method: http.MethodGet, path: path, header: header})
		}
		assert.Equal(t, "ok", get("/healthz", nil).ok().str("status"))
		assert.Equal(t, "ready", get("/readyz", nil).ok().str("status"))
		assert.Contains(t, string(h.send(request{method: http.MethodGet, path: "/metrics", token: bootstrapKey}).ok().raw), "nowserving_build_info")
		for _, page := range []string{"/", "/docs", "/console", "/join/abc", "/ticket/abc", "/display/abc"} {
			assert.Contains(t, get(page, nil).ok().header.Get("Content-Type"), "text/html", page)
		}
		assert.Equal(t, "mine-1.a_B", get("/healthz", map[string]string{"X-Request-Id": "mine-1.a_B"}).header.Get("X-Request-Id"))
		made := get("/healthz", map[string]string{"X-Request-Id": "a b<script>"}).header.Get("X-Request-Id")
		assert.Regexp(t, `^[0-9a-v]{20}$`, made)
		notFound := get("/management/nothing", nil).refused(http.StatusNotFound, models.CodeRouteMissing)
		assert.Equal(t, publicURL+"/docs#REQ-NOT_FOUND", notFound.str("type"))
		wrong := h.send(request{method: http.MethodDelete, path: "/availability/types"}).refused(http.StatusMethodNotAllowed, models.CodeMethod)
		assert.Equal(t, http.MethodPost, wrong.header.Get("Allow"))
		get("/management/types/", nil).refused(http.StatusNotFound, models.CodeRouteMissing)
	})
}

func TestOtherSitesMayCallWhenAllowed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	preflight := func(origin string) answer {
		return h.send(request{method: http.MethodOptions, path: "/customer/scheduling/new", header: map[string]string{
			"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization",
		}})
	}
	allowed := preflight(friend)
	assert.Equal(t, http.StatusNoContent, allowed.status)
	assert.Equal(t, friend, allowed.header.Get("Access-Control-Allow-Origin"))
	assert.Contains(t, allowed.header.Get("Access-Control-Allow-Headers"), "Authorization")
	assert.Empty(t, preflight("https://stranger.example").header.Get("Access-Control-Allow-Origin"))
	c := h.newClinic()
	a := h.send(request{method: http.MethodPost, path: "/availability/types", app: c.id, header: map[string]string{"Origin": friend}}).ok()
	assert.Equal(t, friend, a.header.Get("Access-Control-Allow-Origin"))
}

// TestWithoutRedisTheQueueGoesOn: the node says that Redis is away, and goes on
// getting requests, for it answers them correctly.
func TestWithoutRedisTheQueueGoesOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgres)
	c := h.newClinic()
	kind := c.newType(nil)
	room := c.newResource(nil, kind)
	first := c.join(kind, nil).str("id")
	h.server.Stop()
	require.Eventually(t, func() bool {
		a := h.send(request{method: http.MethodGet, path: "/readyz"}).ok()
		return a.str("status") == "degraded" && slices.Equal(a.wrongFields(), []string{"redis", "queueIndex"})
	}, patience, 20*time.Millisecond)
	h.send(request{method: http.MethodGet, path: "/healthz"}).ok()
	second := c.join(kind, nil)
	assert.Equal(t, 2, second.num("queuePosition"))
	assert.Equal(t, first, c.next(room).ok().str("result.id"))
	assert.Equal(t, 1, c.position(second.str("id")))
	assert.Equal(t, 1, h.send(request{method: http.MethodPost, path: "/availability/types", app: c.id}).ok().num("result.0.pendingCount"))
	h.server.Start()
	require.Eventually(t, func() bool {
		return h.send(request{method: http.MethodGet, path: "/readyz"}).ok().str("status") == "ready"
	}, patience, 20*time.Millisecond)
	assert.Equal(t, 1, c.position(second.str("id")))
}

func TestTheDocumentListsEveryErrorCode(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	doc := h.document()
	assert.Equal(t, "3.1.0", doc.str("openapi"))
	codes := doc.pluck("x-error-codes", "code")
	require.Len(t, codes, len(models.Failures))
	for i, f := range models.Failures {
		assert.Equal(t, string(f.Code), codes[i])
		assert.Equal(t, f.Remedy, doc.str(fmt.Sprintf("x-error-codes.%d.remedy", i)))
	}
	schemas := doc.members("components.schemas")
	assert.NotContains(t, schemas, "ErrorModel")
	assert.Contains(t, schemas, "Problem")
	assert.NotContains(t, string(doc.raw), "$schema")
	tags := doc.pluck("tags", "name")
	for path := range doc.members("paths") {
		for method, op := range doc.operationsAt(path) {
			assert.NotEmpty(t, at(op, "summary"), "%s %s", method, path)
			assert.NotEmpty(t, at(op, "operationId"), "%s %s", method, path)
			assert.Contains(t, tags, at(op, "tags.0"), "%s %s", method, path)
			if at(op, "requestBody") != nil {
				assert.NotNil(t, at(op, "requestBody.content.application/json.example"), "%s %s has no example", method, path)
			}
		}
	}
	join := answer{t: t, of: "the body", body: doc.operationsAt("/management/scheduling/new")}
	schema := schemas[strings.TrimPrefix(join.str("put.requestBody.content.application/json.schema.$ref"), "#/components/schemas/")]
	for _, field := range []string{"type", "assign", "assignmentTimeout", "priority", "customerIdentifier", "resourceFilters", "note", "bookingInfoCustomFields"} {
		assert.NotNil(t, at(schema, "properties."+field), field)
	}
	assert.Equal(t, []any{"type"}, at(schema, "required"))
}
