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

	"nowserving/realtime/presence"
)

// line is a live connection and the code it was closed with.
type line struct {
	ws     *websocket.Conn
	closed chan int
}

// line connects somebody live.
func (h *house) line(token string) *line {
	h.t.Helper()
	ws, res, err := websocket.Dial(h.t.Context(), "ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", nil)
	require.NoError(h.t, err)
	if res.Body != nil {
		require.NoError(h.t, res.Body.Close())
	}
	h.t.Cleanup(func() { _ = ws.CloseNow() })
	require.NoError(h.t, ws.Write(h.t.Context(), websocket.MessageText, fmt.Appendf(nil, `{"id":1,"connect":{"token":%q}}`, token)))
	_, answer, err := ws.Read(h.t.Context())
	require.NoError(h.t, err)
	require.Contains(h.t, string(answer), `"connect"`)
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
	case <-time.After(patience):
		t.Fatal("the connection goes on")
		return 0
	}
}

// open reports whether none of some connections has been closed, after the node
// had the time to close one.
func (h *house) open(lines ...*line) bool {
	h.t.Helper()
	for _, l := range lines {
		select {
		case <-l.closed:
			return false
		default:
		}
		ctx, cancel := context.WithTimeout(h.t.Context(), patience)
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
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		nodes := []*house{h, h}
		if h.server != nil {
			nodes[1] = h.beside(nil)
		}
		typeID := c.serve(c.newType(nil))
		tokens := map[string]string{"customer": c.patient("+966500000611"), "ticket": c.join(typeID, nil).str("ticketToken")}
		for name, token := range tokens {
			var lines []*line
			for i := range 5 {
				lines = append(lines, nodes[i%2].line(token))
			}
			for i := range 3 { // each one more ends the oldest, wherever it is
				assert.True(t, h.open(lines[i:]...), name)
				lines = append(lines, nodes[1].line(token))
				assert.Equal(t, 3504, lines[i].ends(t), name)
			}
			// Who hangs up makes room.
			require.NoError(t, lines[4].ws.CloseNow())
			lines[4].ends(t)
			key := "ns:{" + c.id + "}:connections:*"
			require.Eventually(t, func() bool { return h.counted(key) == 4 }, patience, 5*time.Millisecond, name)
			lines = append(lines, h.line(token))
			assert.Equal(t, 5, h.counted(key), name)
			lines = append(lines, h.line(token))
			assert.Equal(t, 3504, lines[3].ends(t), name)
			assert.True(t, h.open(lines[5:]...), name)
			for _, l := range lines {
				if err := l.ws.CloseNow(); err != nil {
					assert.ErrorIs(t, err, net.ErrClosed, name) // by the server
				}
			}
			require.Eventually(t, func() bool { return h.counted(key) == 0 }, patience, 5*time.Millisecond, name)
		}
		var staff []*line
		for range 7 {
			staff = append(staff, h.line(c.key))
		}
		assert.True(t, h.open(staff...))
	})
}

// counted is how many live connections of patients are counted.
func (h *house) counted(pattern string) int {
	h.t.Helper()
	ctx := context.Background()
	keys, err := h.Redis.Keys(ctx, pattern).Result()
	require.NoError(h.t, err)
	all := 0
	for _, key := range keys {
		n, err := h.Redis.ZCard(ctx, key).Result()
		require.NoError(h.t, err)
		all += int(n)
	}
	return all
}

// TestWithoutRedisANodeCountsRequestsByItself: the limit holds, and a patient's
// connections are open.
func TestWithoutRedisANodeCountsRequestsByItself(t *testing.T) {
	t.Parallel()
	h := newHouse(t, postgres, limitedTo(20), hasty)
	c := h.newClinic()
	typeID := c.newType(nil)
	ticket := c.join(typeID, nil).str("ticketToken")
	h.server.Stop()
	refused := c.untilRefused(request{method: http.MethodGet, path: "/management/types", token: c.key})
	assert.Equal(t, "20", refused.header.Get("X-RateLimit-Limit"))
	assert.Equal(t, 1, strings.Count(h.logged.String(), "Redis does not count requests"), "it is said once")
	var lines []*line
	for range 7 {
		lines = append(lines, h.line(ticket))
	}
	assert.True(t, h.open(lines...))
	h.server.Start()
	c.untilRefused(request{method: http.MethodGet, path: "/management/types", token: c.key})
}

// TestWhatADeadNodeLeavesBehindEndsNothing: while both nodes live, the sixth
// connection ends the first; once one was killed, what it has left behind counts
// no longer.
func TestWhatADeadNodeLeavesBehindEndsNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		ctx := t.Context()
		for _, dies := range []bool{false, true} {
			var past time.Duration
			now := func() time.Time { return time.Now().Add(past) }
			here, there := presence.NewConnections(h.Redis, now), presence.NewConnections(h.Redis, now)
			here.Patience, there.Patience = patience, patience
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
				case <-time.After(patience):
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
				again.Patience = patience
				past += 45 * time.Second
				require.NoError(t, again.Beat(ctx))
				add(again, "c1")
				assert.Equal(t, "a2", ended())
				past += 45 * time.Second
				beat(again)
				add(again, "c2")
				assert.Equal(t, 2, h.counted("ns:{o}:connections:true"))
			}
			require.NoError(t, told.Close())
		}
	})
}
