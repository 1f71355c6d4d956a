package main

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// The type of a problem is an address in the API reference, of the line that explains the
// code. The page shows operations with their shared parameters and answers, webhooks, and
// links to the other documents.
func TestTheReferenceExplainsEveryCode(t *testing.T) {
	t.Parallel()
	node := startProcess(t, environ(t, nodetest.Embedded))
	problem := node.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/nothing", Token: nodetest.BootstrapKey})
	require.Equal(t, http.StatusNotFound, problem.Status)

	page := browse(t)(problem.Str("type"), 1280, 900)
	page.shows("true", `document.querySelectorAll('[data-testid="operation"]').length > 80`)
	page.shows(problem.Str("code"), `document.querySelector('tr.here code')?.textContent`)
	page.shows("true", `document.querySelector('tr.here').getBoundingClientRect().top < innerHeight`)
	codes := node.Send(nodetest.Request{Method: http.MethodGet, Path: "/openapi.json"}).OK().Pluck("x-error-codes", "code")
	require.NotEmpty(t, codes)
	for _, code := range codes {
		require.Equal(t, code, page.eval(`document.getElementById('`+code+`')?.querySelector('code').textContent`))
	}
	page.shows("true", `document.getElementById('createBooking').textContent.includes('X-APP-ID')`)
	page.shows("true", `document.getElementById('bookingCalledWebhook').textContent.includes('webhook-signature')`)
	page.shows("true", `document.getElementById('bookingCalledWebhook').textContent.includes('"trigger": "bookingCalled"')`)
	page.shows("3", `document.querySelectorAll('header a[href$=".json"]').length`)
}
