package realtime_test

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/realtime"
)

// Many clients are asked to come back elsewhere over a while. Meanwhile nobody
// new is taken in, and who was not asked yet goes on being told what happens.
func TestManyClientsLeaveOneAfterAnother(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	id := w.join("r1")
	const clients = 1000 // are asked within 500 ms
	var reading sync.WaitGroup
	var heard atomic.Int64
	left := make(chan time.Time, clients)
	for range clients {
		c := dial(t, n.url, nil)
		c.connect("t")
		c.send(`{"id":2,"subscribe":{"channel":"booking:` + id + `"}}`)
		require.Contains(t, c.receive(), "SNAPSHOT")
		reading.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			for {
				_, frame, err := c.ws.Read(ctx)
				if err != nil {
					assert.Equal(t, websocket.StatusCode(3001), websocket.CloseStatus(err))
					left <- time.Now()
					return
				}
				if strings.Contains(string(frame), "HELD") {
					heard.Add(1)
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var leaving sync.WaitGroup
	leaving.Go(func() { assert.NoError(t, n.hub.Shutdown(ctx)) })
	for n.hub.Stats().Connections == clients { // until the first has gone
		runtime.Gosched()
	}
	w.do(models.ActionHold, id)
	first := <-left
	_, res, err := websocket.Dial(t.Context(), n.url, nil)
	require.Error(t, err)
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.NoError(t, res.Body.Close())
	reading.Wait()
	leaving.Wait()
	close(left)
	last := first
	for at := range left {
		last = at
	}
	require.Greater(t, last.Sub(first), 200*time.Millisecond)
	require.Positive(t, heard.Load(), "who had not been asked yet was told nothing more")
	require.Less(t, heard.Load(), int64(clients))
}

func TestAFewClientsLeaveAtOnce(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	var reading sync.WaitGroup
	for range 10 {
		c := dial(t, n.url, nil)
		c.connect("t")
		reading.Go(func() {
			code, _ := c.closed()
			assert.Equal(t, 3001, code)
		})
	}
	began := time.Now()
	n.stop()
	require.Less(t, time.Since(began), 5*time.Second)
	reading.Wait()
}
