package handlers_test

import (
	"net/http"
	"testing"
)

// What counting a request costs: an unknown address is counted and then refused,
// /healthz is not counted.
func BenchmarkLimit(b *testing.B) {
	for _, on := range []backend{embedded, postgres} {
		b.Run(string(on), func(b *testing.B) {
			c := newHouse(b, on).newClinic()
			for _, ask := range []request{{method: http.MethodGet, path: "/healthz"}, {method: http.MethodGet, path: "/nowhere"}} {
				b.Run(ask.path[1:], func(b *testing.B) {
					for b.Loop() {
						c.send(ask)
					}
				})
			}
		})
	}
}
