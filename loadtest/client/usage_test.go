package client

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScrapeSaysWhatIsMissing(t *testing.T) {
	conn := NewHTTPClient()
	defer conn.CloseIdleConnections()
	for want, body := range map[string]string{
		"1 of the figures are missing": "process_cpu_seconds_total 1\ngo_goroutines 2\n",
		"go_goroutines: strconv":       "go_goroutines x\n",
		"HTTP 404":                     "",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body == "" {
				http.NotFound(w, r)
			}
			w.Write([]byte(body)) //nolint:errcheck // the client reports a lost response
		}))
		_, err := ScrapeUsage(t.Context(), conn, "", []string{server.URL})
		require.ErrorContains(t, err, want)
		server.Close()
	}
}
