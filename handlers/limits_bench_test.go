package handlers_test

import (
	"net/http"
	"testing"

	"nowserving/cmd/nowserving/node/nodetest"
)

// What counting a request costs: an unknown address is counted and then refused,
// /healthz is not counted.
func BenchmarkLimit(b *testing.B) {
	for _, on := range []nodetest.Backend{nodetest.Embedded, nodetest.Postgres} {
		b.Run(string(on), func(b *testing.B) {
			c := nodetest.Start(b, on).NewClinic()
			for _, ask := range []nodetest.Request{{Method: http.MethodGet, Path: "/healthz"}, {Method: http.MethodGet, Path: "/nowhere"}} {
				b.Run(ask.Path[1:], func(b *testing.B) {
					for b.Loop() {
						c.Send(ask)
					}
				})
			}
		})
	}
}
