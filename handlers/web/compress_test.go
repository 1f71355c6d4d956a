package web_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Pages and their files are compressed for clients that accept gzip and plain for the
// others, and caches can tell the two apart.
func TestPagesAreCompressed(t *testing.T) {
	t.Parallel()
	server := serve(t)
	get := func(path, encoding string, more ...string) (answer, []byte) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+path, http.NoBody)
		require.NoError(t, err)
		request.Header.Set("Accept-Encoding", encoding) // or the client asks by itself
		for i := 0; i < len(more); i += 2 {
			request.Header.Set(more[i], more[i+1])
		}
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		body, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return answer{response.StatusCode, response.Header}, body
	}
	plain, zipped := 0, 0
	for _, path := range append([]string{"/static/patient.js", "/static/base.css", "/static/vendor/centrifuge.js"}, pages...) {
		whole, body := get(path, "identity")
		assert.Empty(t, whole.Header.Get("Content-Encoding"), path)
		assert.Equal(t, "Accept-Encoding", whole.Header.Get("Vary"), path)
		for _, encoding := range []string{"gzip", "br, GZIP;q=0.5", "deflate, gzip, br"} {
			small, packed := get(path, encoding)
			require.Equal(t, "gzip", small.Header.Get("Content-Encoding"), path)
			assert.Equal(t, whole.Header.Get("Content-Type"), small.Header.Get("Content-Type"), path)
			assert.NotEqual(t, whole.Header.Get("ETag"), small.Header.Get("ETag"), path)
			again, _ := get(path, encoding, "If-None-Match", small.Header.Get("ETag"))
			assert.Equal(t, http.StatusNotModified, again.StatusCode, path)
			z, err := gzip.NewReader(bytes.NewReader(packed))
			require.NoError(t, err)
			unpacked, err := io.ReadAll(z)
			require.NoError(t, err)
			assert.Equal(t, string(body), string(unpacked), path)
			if encoding == "gzip" {
				plain, zipped = plain+len(body), zipped+len(packed)
			}
		}
		for _, encoding := range []string{"gzip;q=0", "br", ""} {
			refused, _ := get(path, encoding)
			assert.Empty(t, refused.Header.Get("Content-Encoding"), "%s for %q", path, encoding)
		}
	}
	assert.Less(t, zipped*3, plain, "a third at most")
}
