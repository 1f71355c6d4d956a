package handlers_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// BenchmarkAuthentication is what it costs to know who asks: a handler that
// answers anybody, beside the same behind an access token or an API key.
//
//	go test ./handlers/ -run - -bench Authentication -benchmem
func BenchmarkAuthentication(b *testing.B) {
	h := nodetest.Start(b, nodetest.Embedded)
	h.Handlers.ServeNothing()
	c := h.NewClinic()
	token := c.Patient("+966500000481")
	for _, row := range []struct{ name, path, token string }{
		{"bare", "/nothing/bare", ""},
		{"access token", "/nothing/known", token},
		{"API key", "/nothing/known", c.Key},
	} {
		b.Run(row.name, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, row.path, http.NoBody)
			if row.token != "" {
				r.Header.Set("Authorization", "Bearer "+row.token)
			}
			b.ReportAllocs()
			for b.Loop() {
				w := httptest.NewRecorder()
				h.Handlers.ServeHTTP(w, r)
				require.Equal(b, http.StatusOK, w.Code)
			}
		})
	}
}
