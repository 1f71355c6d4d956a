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

	"nowserving/cmd/nowserving/node/nodetest"
)

func TestRequestsThatAreTooLongOrTooSlowAreEnded(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	// ask sends the beginning of a request. It returns the status and the time until the
	// answer. The status is 0 if the server closed the connection without an answer.
	ask := func(t *testing.T, begin string) (status int, took time.Duration) {
		t.Helper()
		began := time.Now()
		conn, err := (&net.Dialer{Timeout: nodetest.Patience}).DialContext(t.Context(), "tcp", strings.TrimPrefix(h.URL, "http://"))
		require.NoError(t, err)
		defer conn.Close() //nolint:errcheck // the end of a test
		require.NoError(t, conn.SetDeadline(time.Now().Add(nodetest.Patience)))
		if _, err := io.WriteString(conn, begin); err != nil {
			t.Log("the server has closed the connection already:", err)
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
			fmt.Sprintf("POST /management/organizations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\n{", nodetest.BootstrapKey),
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
