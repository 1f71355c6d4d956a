package realtime_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/realtime"
)

// raw opens a live connection that the test writes and reads byte by byte, and
// returns it after the handshake.
func raw(t *testing.T, n *node) net.Conn {
	t.Helper()
	address := n.server.Listener.Addr().String()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // the server may have closed it
	_, err = fmt.Fprintf(c, "GET /connection/websocket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", address)
	require.NoError(t, err)
	var answer strings.Builder
	for one := make([]byte, 1); !strings.HasSuffix(answer.String(), "\r\n\r\n"); answer.Write(one) {
		_, err := c.Read(one)
		require.NoError(t, err)
	}
	require.Contains(t, answer.String(), " 101 ")
	return c
}

// frame encodes a frame of a client, with a mask of zeros.
func frame(opcode byte, payload string) string {
	return string([]byte{0x80 | opcode, 0x80 | byte(len(payload)), 0, 0, 0, 0}) + payload
}

const hello = `{"id":1,"connect":{"token":"a"}}`

// closedWithin waits until the server has closed a connection, and returns how
// long that took.
func closedWithin(t *testing.T, c net.Conn, limit time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	require.NoError(t, c.SetReadDeadline(began.Add(limit)))
	buffer := make([]byte, 1024)
	for {
		if _, err := c.Read(buffer); err != nil {
			timeout, ok := err.(net.Error) //nolint:errorlint // of a plain connection
			require.False(t, ok && timeout.Timeout(), "still open after %v", limit)
			return time.Since(began)
		}
	}
}

func TestClientThatStopsReadingIsClosedWithinTenSeconds(t *testing.T) {
	t.Parallel()
	w := small(t)
	n := w.node(realtime.Options{SocketBuffer: 32 << 10}) // the defaults of production
	id := w.join("r1")
	deaf := raw(t, n)
	_, err := deaf.Write([]byte(frame(1, hello) + frame(1, fmt.Sprintf(`{"id":2,"subscribe":{"channel":"booking:%s"}}`, id))))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return n.hub.Stats().Subscriptions == 1 }, patience, time.Millisecond)
	began := time.Now() // it reads nothing, and its kernel takes what it is sent
	require.Eventually(t, func() bool {
		w.do(models.ActionHold, id)
		w.do(models.ActionReturn, id)
		return n.hub.Stats().Connections == 0
	}, patience, 50*time.Millisecond)
	t.Logf("closed after %v", time.Since(began).Round(10*time.Millisecond))
	assert.Less(t, time.Since(began), 11*time.Second)
}

func TestClientThatAnswersPingsStays(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{WriteTimeout: 400 * time.Millisecond, PongTimeout: 200 * time.Millisecond, FrameTimeout: 100 * time.Millisecond})
	id := w.join("r1")
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "patient"})
	l := p.watch("booking:" + id)
	l.next()
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		w.do(models.ActionHold, id)
		l.until(func(n news) bool { return n.Stage == "HELD" })
		w.do(models.ActionReturn, id)
		l.until(func(n news) bool { return n.Stage == "WAITING" })
	}
	assert.Equal(t, 1, l.count("SNAPSHOT"), "it was never disconnected")
}

// Every kind of connection that stops in the middle of something is closed.
func TestHalfOpenConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	w := small(t)
	limits := realtime.Options{ConnectTimeout: time.Second, FrameTimeout: time.Second, PongTimeout: time.Second, WriteTimeout: time.Second}
	n := w.node(limits)
	half := func(s string) string { return s[:len(s)/2] }
	long := frame(1, hello+strings.Repeat(" ", 90))
	kinds := map[string]string{
		"nothing":                           "",
		"one byte":                          long[:1],
		"half a header":                     long[:4],
		"half a frame":                      half(long),
		"a fragment":                        "\x01" + frame(1, hello)[1:],
		"half a control frame":              half(frame(9, "are you there")),
		"half a frame after a control one":  frame(9, "") + half(long),
		"half a header after a control one": frame(10, "") + long[:1],
		"connected, then one byte":          frame(1, hello) + long[:1],
		"connected, then half a frame":      frame(1, hello) + half(long),
		"connected, then a fragment":        frame(1, hello) + "\x01" + long[1:],
	}
	var waiting sync.WaitGroup
	for range 14 {
		for kind, bytes := range kinds {
			c := raw(t, n)
			_, err := c.Write([]byte(bytes))
			require.NoError(t, err, kind)
			waiting.Go(func() {
				if took := closedWithin(t, c, patience); took > 4*time.Second {
					t.Errorf("%s: closed after %v", kind, took)
				}
			})
		}
	}
	waiting.Wait()
	require.Eventually(t, func() bool { return n.hub.Stats().Connections == 0 }, patience, time.Millisecond)
}

// A control frame is no frame that has begun: a client that pings by itself may
// say nothing more for as long as it likes.
func TestClientMayPingAndBeSilent(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{FrameTimeout: 100 * time.Millisecond})
	c := raw(t, n)
	_, err := c.Write([]byte(frame(1, hello) + frame(9, "")))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return n.hub.Stats().Connections == 1 }, patience, time.Millisecond)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Second)))
	buffer := make([]byte, 1024)
	for err == nil {
		_, err = c.Read(buffer)
	}
	timeout, ok := err.(net.Error) //nolint:errorlint // of a plain connection
	require.True(t, ok && timeout.Timeout(), "the server closed the connection: %v", err)
	_, err = c.Write([]byte(frame(1, `{"id":2,"ping":{}}`)))
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	read, err := c.Read(buffer)
	require.NoError(t, err)
	var reply struct{ ID int }
	require.NoError(t, json.Unmarshal(buffer[2:read], &reply))
	assert.Equal(t, 2, reply.ID)
}
