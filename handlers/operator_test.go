package handlers_test

import (
	"nowserving/cmd/nowserving/node"

	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/notify/outbox"
)

func basic(password string) map[string]string {
	return map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("operator:"+password))}
}

// Operators see the jobs of all organizations, so only an account key opens
// the pages and everything they ask.
func TestOperatorsLookAtJobs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		typeID := c.newType(nil)
		c.newResource(nil, typeID)
		booking := c.join(typeID, nil)

		member, customer := c.member(models.RoleOwner, "+966500000201"), c.patient("+966500000202")
		for _, path := range []string{"/operator/jobs", "/operator/jobs/", "/operator/jobs/api/jobs", "/operator/jobs/api/health-checks/minimal", "/operator/jobs/robots.txt", "/operator/jobs/favicon.ico"} {
			for _, token := range []string{"", "nonsense", c.key, member, customer, booking.str("ticketToken")} {
				refused := h.send(request{method: http.MethodGet, path: path, token: token}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
				assert.Contains(t, refused.header.Get("WWW-Authenticate"), "Basic realm=", path)
			}
			h.send(request{method: http.MethodGet, path: path, header: basic(c.key)}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			h.send(request{method: http.MethodGet, path: path, header: basic("")}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		}
		h.send(request{method: http.MethodPost, path: "/operator/jobs/api/jobs/cancel", body: object{"ids": []string{"1"}}}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		// A browser comes with a password, a script with a key in either header.
		page := h.send(request{method: http.MethodGet, path: "/operator/jobs/", header: basic(bootstrapKey)}).ok()
		assert.Contains(t, page.header.Get("Content-Type"), "text/html")
		assert.Contains(t, page.header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';")
		assert.Contains(t, string(page.raw), `src="/operator/jobs/assets/`)
		h.send(request{method: http.MethodGet, path: "/operator/jobs/api/states", header: map[string]string{"X-API-KEY": bootstrapKey}}).ok()
		operator := func(method, path string, body any) answer {
			return h.send(request{method: method, path: "/operator/jobs/api" + path, token: bootstrapKey, body: body})
		}
		require.Eventually(t, func() bool { return len(operator(http.MethodGet, "/jobs?state=completed", nil).ok().list("data")) == 1 }, patience, 5*time.Millisecond)
		done := operator(http.MethodGet, "/jobs?state=completed", nil)
		assert.Equal(t, "announce", done.str("data.0.kind"))
		assert.Equal(t, 1, operator(http.MethodGet, "/states", nil).ok().num("completed.count"))
		assert.Subset(t, operator(http.MethodGet, "/queues", nil).ok().pluck("data", "name"), []string{"announce", "messages", "pushes", "webhooks"})
		assert.Equal(t, []any{"announce"}, operator(http.MethodGet, "/autocomplete?facet=job_kind", nil).ok().list("data"))

		// They can hold a queue, and do a job again.
		operator(http.MethodPut, "/queues/messages/pause", object{}).ok()
		assert.NotNil(t, operator(http.MethodGet, "/queues/messages", nil).ok().at("paused_at"))
		operator(http.MethodPut, "/queues/messages/resume", object{}).ok()
		id := fmt.Sprint(done.at("data.0.id"))
		operator(http.MethodPost, "/jobs/retry", object{"ids": []string{id}}).ok()
		require.Eventually(t, func() bool {
			job := operator(http.MethodGet, "/jobs/"+id, nil).ok()
			return job.str("state") == "completed" && job.num("attempt") == 2
		}, patience, 5*time.Millisecond)
		assert.Equal(t, http.StatusNotFound, operator(http.MethodGet, "/jobs/999999", nil).status)

		// Another site can't make an operator's browser do it.
		foreign := basic(bootstrapKey)
		foreign["Origin"], foreign["Sec-Fetch-Site"] = "https://stranger.example", "cross-site"
		h.send(request{method: http.MethodPost, path: "/operator/jobs/api/jobs/delete", header: foreign, body: object{"ids": []string{id}}}).refused(http.StatusForbidden, models.CodeForbidden)
		operator(http.MethodGet, "/jobs/"+id, nil).ok()
		assert.NotEqual(t, http.StatusOK, operator(http.MethodPost, "/jobs/delete", strings.Repeat(" ", 1<<20)+`{"ids":["`+id+`"]}`).status, "a body has a bound")
		operator(http.MethodPost, "/jobs/delete", object{"ids": []string{id}}).ok()
		assert.Equal(t, http.StatusNotFound, operator(http.MethodGet, "/jobs/"+id, nil).status)

		// The pages people use keep their own, stricter policy.
		assert.NotContains(t, h.send(request{method: http.MethodGet, path: "/console"}).ok().header.Get("Content-Security-Policy"), "unsafe")
	})
}

// How late the latest is grows while it is not done, and is 0 when all is.
func TestOldestDueGrowsUntilTheJobIsDone(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	t.Cleanup(slow.Close)
	h := newHouse(t, embedded, func(c *node.Config) { c.WebhookAllowPrivate = true })
	c := h.newClinic()
	c.staff(http.MethodPost, "/management/webhooks", object{"trigger": "bookingUnassigned", "url": slow.URL}).ok()
	age := func() time.Duration {
		oldest, err := h.Notify.OldestDue(t.Context())
		require.NoError(t, err)
		return oldest["webhooks"]
	}
	require.Zero(t, age())
	c.join(c.newType(nil), nil)
	<-arrived
	h.exec("UPDATE river_job SET scheduled_at = ? WHERE queue = 'webhooks'", time.Now().UTC().Add(-90*time.Second).Format("2006-01-02 15:04:05.000"))
	require.InDelta(t, 90, age().Seconds(), 20)
	close(release)
	require.Eventually(t, func() bool { return age() == 0 }, patience, 5*time.Millisecond)
	require.EqualValues(t, 1, h.Notify.Counts().Outcomes[outbox.Outcome{Channel: "webhook", Result: "sent"}])
}
