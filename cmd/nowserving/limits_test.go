package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whoever sends too much, or takes too long over it, is not waited for.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	c := start(t, backends[0].settings(t))
	// ask sends the beginning of a request and returns how it is answered, and
	// after how long; 0 when the server hung up without a word.
	ask := func(t *testing.T, begin string) (status int, took time.Duration) {
		t.Helper()
		began := time.Now()
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", strings.TrimPrefix(c.url, "http://"))
		require.NoError(t, err)
		defer conn.Close() //nolint:errcheck // the end of a test
		require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
		if _, err := io.WriteString(conn, begin); err != nil {
			t.Log("the server has hung up already:", err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			require.NotErrorIs(t, err, net.ErrClosed)
			return 0, time.Since(began)
		}
		require.NoError(t, res.Body.Close())
		return res.StatusCode, time.Since(began)
	}
	for name, test := range map[string]struct {
		begin  string
		status int
		within time.Duration
	}{
		"long headers": {"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("x", 32<<10) + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge, 15 * time.Second},
		"nothing":      {"", 0, 13 * time.Second},
		"slow headers": {"GET /healthz HTTP/1.1\r\nHost: x\r\n", 0, 13 * time.Second},
		"slow upgrade": {"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: web", 0, 13 * time.Second},
		"slow body": {
			fmt.Sprintf("POST /management/organizations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{", testKey),
			http.StatusBadRequest, 13 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, took := ask(t, test.begin)
			assert.Equal(t, test.status, status)
			assert.Less(t, took, test.within)
		})
	}
}
