package main

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// The type of a problem is an address in the API reference: it leads to the
// line that explains the code. The page shows operations with their shared
// parameters and answers, webhooks, and links to the other documents.
func TestTheReferenceExplainsEveryCode(t *testing.T) {
	t.Parallel()
	node := startProcess(t, backends[0].settings(t))
	status, answer, err := node.try("GET", "/management/nothing", nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, status)
	var problem struct{ Type, Code string }
	require.NoError(t, json.Unmarshal(answer, &problem))

	page := browse(t)(problem.Type, 1280, 900)
	page.shows("true", `document.querySelectorAll('[data-testid="operation"]').length > 80`)
	page.shows(problem.Code, `document.querySelector('tr.here code')?.textContent`)
	page.shows("true", `document.querySelector('tr.here').getBoundingClientRect().top < innerHeight`)
	_, answer, err = node.try("GET", "/openapi.json", nil)
	require.NoError(t, err)
	var document struct {
		Codes []struct{ Code string } `json:"x-error-codes"`
	}
	require.NoError(t, json.Unmarshal(answer, &document))
	require.NotEmpty(t, document.Codes)
	for _, c := range document.Codes {
		require.Equal(t, c.Code, page.eval(`document.getElementById('`+c.Code+`')?.querySelector('code').textContent`))
	}
	page.shows("true", `document.getElementById('createBooking').textContent.includes('X-APP-ID')`)
	page.shows("true", `document.getElementById('bookingCalledWebhook').textContent.includes('webhook-signature')`)
	page.shows("true", `document.getElementById('bookingCalledWebhook').textContent.includes('"trigger": "bookingCalled"')`)
	page.shows("3", `document.querySelectorAll('header a[href$=".json"]').length`)
}
