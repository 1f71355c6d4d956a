package handlers_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node"
	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
	"nowserving/notify/outbox"
)

func basic(password string) map[string]string {
	return map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte("operator:"+password))}
}

// Operators see the jobs of all organizations, so only an account key opens
// the pages and everything they ask.
func TestOperatorsSeeJobsWithAnAccountKey(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		typeID := c.NewType(nil)
		c.NewResource(nil, typeID)
		booking := c.Join(typeID, nil)

		member, customer := c.Member(models.RoleOwner, "+966500000201"), c.Patient("+966500000202")
		for _, path := range []string{"/operator/jobs", "/operator/jobs/", "/operator/jobs/api/jobs", "/operator/jobs/api/health-checks/minimal", "/operator/jobs/robots.txt", "/operator/jobs/favicon.ico"} {
			for _, token := range []string{"", "nonsense", c.Key, member, customer, booking.Str("ticketToken")} {
				refused := h.Send(nodetest.Request{Method: http.MethodGet, Path: path, Token: token}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
				assert.Contains(t, refused.Header.Get("WWW-Authenticate"), "Basic realm=", path)
			}
			h.Send(nodetest.Request{Method: http.MethodGet, Path: path, Header: basic(c.Key)}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			h.Send(nodetest.Request{Method: http.MethodGet, Path: path, Header: basic("")}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		}
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/operator/jobs/api/jobs/cancel", Body: nodetest.Object{"ids": []string{"1"}}}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		// A browser comes with a password, a script with a key in either header.
		page := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/operator/jobs/", Header: basic(nodetest.BootstrapKey)}).OK()
		assert.Contains(t, page.Header.Get("Content-Type"), "text/html")
		assert.Contains(t, page.Header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';")
		assert.Contains(t, string(page.Raw), `src="/operator/jobs/assets/`)
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/operator/jobs/api/states", Header: map[string]string{"X-API-KEY": nodetest.BootstrapKey}}).OK()
		operator := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: "/operator/jobs/api" + path, Token: nodetest.BootstrapKey, Body: body})
		}
		require.Eventually(t, func() bool { return len(operator(http.MethodGet, "/jobs?state=completed", nil).OK().List("data")) == 1 }, nodetest.Patience, 5*time.Millisecond)
		done := operator(http.MethodGet, "/jobs?state=completed", nil)
		assert.Equal(t, "announce", done.Str("data.0.kind"))
		assert.Equal(t, 1, operator(http.MethodGet, "/states", nil).OK().Num("completed.count"))
		assert.Subset(t, operator(http.MethodGet, "/queues", nil).OK().Pluck("data", "name"), []string{"announce", "messages", "pushes", "webhooks"})
		assert.Equal(t, []any{"announce"}, operator(http.MethodGet, "/autocomplete?facet=job_kind", nil).OK().List("data"))

		// They can hold a queue, and do a job again.
		operator(http.MethodPut, "/queues/messages/pause", nodetest.Object{}).OK()
		assert.NotNil(t, operator(http.MethodGet, "/queues/messages", nil).OK().At("paused_at"))
		operator(http.MethodPut, "/queues/messages/resume", nodetest.Object{}).OK()
		id := fmt.Sprint(done.At("data.0.id"))
		operator(http.MethodPost, "/jobs/retry", nodetest.Object{"ids": []string{id}}).OK()
		require.Eventually(t, func() bool {
			job := operator(http.MethodGet, "/jobs/"+id, nil).OK()
			return job.Str("state") == "completed" && job.Num("attempt") == 2
		}, nodetest.Patience, 5*time.Millisecond)
		assert.Equal(t, http.StatusNotFound, operator(http.MethodGet, "/jobs/999999", nil).Status)

		// Another site can't make an operator's browser do it.
		foreign := basic(nodetest.BootstrapKey)
		foreign["Origin"], foreign["Sec-Fetch-Site"] = "https://stranger.example", "cross-site"
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/operator/jobs/api/jobs/delete", Header: foreign, Body: nodetest.Object{"ids": []string{id}}}).Refused(http.StatusForbidden, models.CodeForbidden)
		operator(http.MethodGet, "/jobs/"+id, nil).OK()
		assert.NotEqual(t, http.StatusOK, operator(http.MethodPost, "/jobs/delete", strings.Repeat(" ", 1<<20)+`{"ids":["`+id+`"]}`).Status, "a body has a bound")
		operator(http.MethodPost, "/jobs/delete", nodetest.Object{"ids": []string{id}}).OK()
		assert.Equal(t, http.StatusNotFound, operator(http.MethodGet, "/jobs/"+id, nil).Status)

		// The pages people use keep their own, stricter policy.
		assert.NotContains(t, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/console"}).OK().Header.Get("Content-Security-Policy"), "unsafe")
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
	h := nodetest.Start(t, nodetest.Embedded, func(c *node.Config) { c.WebhookAllowPrivate = true })
	c := h.NewClinic()
	c.Staff(http.MethodPost, "/management/webhooks", nodetest.Object{"trigger": "bookingUnassigned", "url": slow.URL}).OK()
	age := func() time.Duration {
		oldest, err := h.Notify.OldestDue(t.Context())
		require.NoError(t, err)
		return oldest["webhooks"]
	}
	require.Zero(t, age())
	c.Join(c.NewType(nil), nil)
	<-arrived
	h.Exec("UPDATE river_job SET scheduled_at = ? WHERE queue = 'webhooks'", time.Now().UTC().Add(-90*time.Second).Format("2006-01-02 15:04:05.000"))
	require.InDelta(t, 90, age().Seconds(), 20)
	close(release)
	require.Eventually(t, func() bool { return age() == 0 }, nodetest.Patience, 5*time.Millisecond)
	require.EqualValues(t, 1, h.Notify.Counts().Outcomes[outbox.Outcome{Channel: "webhook", Result: "sent"}])
}
