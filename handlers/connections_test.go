package handlers_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/realtime/presence"
)

// line is a live connection and the code it was closed with.
type line struct {
	ws     *websocket.Conn
	closed chan int
}

// line connects somebody live.
func newLine(h *nodetest.Node, token string) *line {
	h.T.Helper()
	ws, res, err := websocket.Dial(h.T.Context(), "ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", nil)
	require.NoError(h.T, err)
	if res.Body != nil {
		require.NoError(h.T, res.Body.Close())
	}
	h.T.Cleanup(func() { ws.CloseNow() }) //nolint:errcheck // it may be closed already
	require.NoError(h.T, ws.Write(h.T.Context(), websocket.MessageText, fmt.Appendf(nil, `{"id":1,"connect":{"token":%q}}`, token)))
	_, answer, err := ws.Read(h.T.Context())
	require.NoError(h.T, err)
	require.Contains(h.T, string(answer), `"connect"`)
	l := &line{ws, make(chan int, 1)}
	go func() {
		for {
			_, frame, err := ws.Read(context.Background())
			if err == nil && string(frame) == "{}" { // a ping wants to be answered
				err = ws.Write(context.Background(), websocket.MessageText, frame)
			}
			if err != nil {
				l.closed <- int(websocket.CloseStatus(err))
				return
			}
		}
	}()
	return l
}

// ends waits for the code the connection is closed with.
func (l *line) ends(t *testing.T) int {
	t.Helper()
	select {
	case code := <-l.closed:
		return code
	case <-time.After(nodetest.Patience):
		t.Fatal("the connection goes on")
		return 0
	}
}

// open reports whether none of some connections has been closed, after the node
// had the time to close one.
func open(h *nodetest.Node, lines ...*line) bool {
	h.T.Helper()
	for _, l := range lines {
		select {
		case <-l.closed:
			return false
		default:
		}
		ctx, cancel := context.WithTimeout(h.T.Context(), nodetest.Patience)
		err := l.ws.Write(ctx, websocket.MessageText, []byte(`{"id":9,"ping":{}}`))
		cancel()
		if err != nil {
			return false
		}
	}
	return true
}

func TestAPatientHasFiveLiveConnections(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		nodes := []*nodetest.Node{h, h}
		if h.RedisServer != nil {
			nodes[1] = h.Beside(nil)
		}
		typeID := c.Serve(c.NewType(nil))
		tokens := map[string]string{"customer": c.Patient("+966500000611"), "ticket": c.Join(typeID, nil).Str("ticketToken")}
		for name, token := range tokens {
			var lines []*line
			for i := range 5 {
				lines = append(lines, newLine(nodes[i%2], token))
			}
			for i := range 3 { // each one more ends the oldest, wherever it is
				assert.True(t, open(h, lines[i:]...), name)
				lines = append(lines, newLine(nodes[1], token))
				assert.Equal(t, 3504, lines[i].ends(t), name)
			}
			// Who hangs up makes room.
			require.NoError(t, lines[4].ws.CloseNow())
			lines[4].ends(t)
			key := "ns:{" + c.ID + "}:connections:*"
			require.Eventually(t, func() bool { return counted(h, key) == 4 }, nodetest.Patience, 5*time.Millisecond, name)
			lines = append(lines, newLine(h, token))
			assert.Equal(t, 5, counted(h, key), name)
			lines = append(lines, newLine(h, token))
			assert.Equal(t, 3504, lines[3].ends(t), name)
			assert.True(t, open(h, lines[5:]...), name)
			for _, l := range lines {
				if err := l.ws.CloseNow(); err != nil {
					assert.ErrorIs(t, err, net.ErrClosed, name) // by the server
				}
			}
			require.Eventually(t, func() bool { return counted(h, key) == 0 }, nodetest.Patience, 5*time.Millisecond, name)
		}
		var staff []*line
		for range 7 {
			staff = append(staff, newLine(h, c.Key))
		}
		assert.True(t, open(h, staff...))
	})
}

// counted is how many live connections of patients are counted.
func counted(h *nodetest.Node, pattern string) int {
	h.T.Helper()
	ctx := context.Background()
	keys, err := h.Redis.Keys(ctx, pattern).Result()
	require.NoError(h.T, err)
	all := 0
	for _, key := range keys {
		n, err := h.Redis.ZCard(ctx, key).Result()
		require.NoError(h.T, err)
		all += int(n)
	}
	return all
}

// TestWithoutRedisANodeCountsRequestsByItself: the limit holds, and a patient's
// connections are open.
func TestWithoutRedisANodeCountsRequestsByItself(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Postgres, nodetest.LimitedTo(20), hasty)
	c := h.NewClinic()
	typeID := c.NewType(nil)
	ticket := c.Join(typeID, nil).Str("ticketToken")
	h.RedisServer.Stop()
	refused := untilRefused(c.Node, nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: c.Key})
	assert.Equal(t, "20", refused.Header.Get("X-RateLimit-Limit"))
	assert.Equal(t, 1, strings.Count(h.Log.String(), "Redis does not count requests"), "it is said once")
	var lines []*line
	for range 7 {
		lines = append(lines, newLine(h, ticket))
	}
	assert.True(t, open(h, lines...))
	h.RedisServer.Start()
	untilRefused(c.Node, nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: c.Key})
}

// TestConnectionsOfADeadNodeAreNotCounted opens six connections on two nodes. While
// both nodes live, the sixth closes the first. After one node was killed, its
// connections do not count.
func TestConnectionsOfADeadNodeAreNotCounted(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		ctx := t.Context()
		for _, dies := range []bool{false, true} {
			var past time.Duration
			now := func() time.Time { return time.Now().Add(past) }
			here, there := presence.NewConnections(h.Redis, now), presence.NewConnections(h.Redis, now)
			here.Patience, there.Patience = nodetest.Patience, nodetest.Patience
			beat := func(nodes ...*presence.Connections) {
				for range 2 {
					for _, node := range nodes {
						require.NoError(t, node.Beat(ctx))
					}
				}
			}
			add := func(node *presence.Connections, ids ...string) {
				for _, id := range ids {
					past += time.Millisecond // the order they come in
					require.NoError(t, node.Add(ctx, "o", fmt.Sprint(dies), id))
				}
			}
			told := h.Redis.Subscribe(ctx, "ns:connections:surplus")
			_, err := told.Receive(ctx)
			require.NoError(t, err)
			ended := func() string {
				select {
				case m := <-told.Channel():
					_, id, _ := strings.Cut(m.Payload, "/")
					return id
				case <-time.After(nodetest.Patience):
					t.Fatal("no connection ends")
					return ""
				}
			}
			beat(here, there)
			add(here, "a1", "a2")
			add(there, "b1", "b2", "b3")
			past += 45 * time.Second
			if !dies {
				beat(here, there)
				add(here, "a3")
				assert.Equal(t, "a1", ended())
			} else {
				beat(here)
				add(here, "a3", "a4", "a5", "a6") // one too many of those here
				assert.Equal(t, "a1", ended())
				// The first time after Redis was away nobody is taken for dead.
				again := presence.NewConnections(h.Redis, now)
				again.Patience = nodetest.Patience
				past += 45 * time.Second
				require.NoError(t, again.Beat(ctx))
				add(again, "c1")
				assert.Equal(t, "a2", ended())
				past += 45 * time.Second
				beat(again)
				add(again, "c2")
				assert.Equal(t, 2, counted(h, "ns:{o}:connections:true"))
			}
			require.NoError(t, told.Close())
		}
	})
}
