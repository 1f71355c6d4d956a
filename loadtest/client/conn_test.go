package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/quick"
	"time"

	"github.com/centrifugal/protocol"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// recorder is a listener that records its calls.
type recorder struct {
	until func(call string) bool // whether to end the subscription

	mu    sync.Mutex
	calls []string
}

func (e *recorder) record(format string, args ...any) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	e.calls = append(e.calls, text)
	return e.until != nil && e.until(text)
}

func (e *recorder) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string{}, e.calls...)
}

func (e *recorder) OnSnapshot(data []byte, requested, got time.Time) bool {
	return e.record("snapshot %s %t", data, !requested.After(got))
}
func (e *recorder) OnPosition(p PositionUpdate, _ time.Time) bool {
	return e.record("position %d %d", p.Position, p.Minutes)
}
func (e *recorder) OnPublication(data []byte, _ time.Time) bool {
	return e.record("publication %s", data)
}
func (e *recorder) OnDisconnect(time.Time) { e.record("disconnect") }

// script is a server that runs one function of a test for each connection.
type script struct {
	t    *testing.T
	url  string
	mu   sync.Mutex
	said []string // by the client, by connection
}

// newScript starts a server. After the handshake and the client's connect command, it passes
// each connection to the next of the functions.
func newScript(t *testing.T, acts ...func(s *script, c net.Conn)) *script {
	t.Helper()
	s := &script{t: t}
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.url = "http://" + listener.Addr().String()
	var done sync.WaitGroup
	done.Go(func() {
		for _, act := range acts {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			s.open(c)
			act(s, c)
			c.Close() //nolint:errcheck // the client may have closed it
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, listener.Close())
		done.Wait()
	})
	return s
}

func (s *script) open(c net.Conn) {
	reader := bufio.NewReader(c)
	r, err := http.ReadRequest(reader)
	if !assert.NoError(s.t, err) {
		return
	}
	key := acceptKey(r.Header.Get("Sec-WebSocket-Key"))
	_, err = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + key + "\r\n\r\n"))
	assert.NoError(s.t, err)
	s.note(s.read(c))
}

func (s *script) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = append(s.said, text)
}

func (s *script) received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.said...)
}

// read returns the opcode and payload of the client's next frame.
func (s *script) read(c net.Conn) string {
	head := make([]byte, 6)
	if _, err := readFull(c, head[:6]); err != nil {
		return "gone"
	}
	length := int(head[1] & 0x7f)
	mask := head[2:6]
	if length == 126 {
		length = int(head[2])<<8 | int(head[3])
		mask = append(mask[2:4:4], 0, 0)
		if _, err := readFull(c, mask[2:]); err != nil {
			return "gone"
		}
	}
	assert.NotZero(s.t, head[1]&0x80, "clients mask their frames")
	payload := make([]byte, length)
	if _, err := readFull(c, payload); err != nil {
		return "gone"
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return fmt.Sprintf("%d %s", head[0]&0x0f, payload)
}

func readFull(c net.Conn, b []byte) (int, error) {
	n := 0
	for n < len(b) {
		m, err := c.Read(b[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// say sends frames in pieces of some bytes, so that they are cut anywhere.
func (s *script) say(c net.Conn, piece int, frames ...[]byte) {
	var all []byte
	for _, f := range frames {
		all = append(all, f...)
	}
	for len(all) > 0 {
		n := min(piece, len(all))
		if _, err := c.Write(all[:n]); err != nil {
			return
		}
		all = all[n:]
	}
}

func text(payload string) []byte {
	return append(appendFrameHead(nil, opText, len(payload)), payload...)
}

const (
	saysConnected  = `{"id":1,"connect":{"client":"c","version":"","ping":25,"pong":true}}`
	saysSubscribed = `{"id":2,"subscribe":{"data":{"a":1}}}`
)

func saysPosition(id string, position int) string {
	return pushHead + `"booking:` + id + `"` + pushMiddle + string(AppendPosition(nil, id, position, position*10)) + pushTail
}

func connectTo(s *script, listeners map[string]*recorder) *Connection {
	c := &Connection{Nodes: []string{s.url}, Protocol: protocol.TypeJSON, Token: "t", slack: time.Second, Stats: new(Stats)}
	for id, e := range listeners {
		c.Add(&Subscription{Channel: "booking:" + id, Booking: id, Listener: e})
	}
	return c
}

func untilCall(want string) func(string) bool {
	return func(call string) bool { return call == want }
}

func TestConnectionReadsFramesCutAnywhere(t *testing.T) {
	long := strings.Repeat(" ", 20_000)
	whole := saysPosition("b", 41) + "\n" + saysPosition("b", 40)
	for _, piece := range []int{1, 7, 1000, 1 << 20} {
		s := newScript(t, func(s *script, c net.Conn) {
			// The answer comes together with what follows it.
			s.say(c, piece, text(saysConnected))
			s.note(s.read(c))
			half := len(whole) / 2
			s.say(c, piece,
				text(saysSubscribed),
				append([]byte{opText, byte(half / 10)}, whole[:half/10]...),
				append(appendFrameHead(nil, opPing, 2), "hi"...),
				append([]byte{opContinuation, 125}, whole[half/10:half/10+125]...),
				append(appendFrameHead(nil, opContinuation, len(whole)-half/10-125), whole[half/10+125:]...),
				text("{}"),
				text(`{"push":{"channel":"booking:b","pub":{"data":{"type":"OTHER","x":"`+long+`"}}}}`),
				text(saysPosition("b", 39)+"\n"),
			)
			s.note(s.read(c))
			s.note(s.read(c))
			s.note(s.read(c))
		})
		e := &recorder{until: untilCall("position 39 390")}
		c := connectTo(s, map[string]*recorder{"b": e})
		require.NoError(t, c.Run(t.Context()))
		require.Equal(t, []string{
			`snapshot {"a":1} true`, "position 41 410", "position 40 400", `publication {"type":"OTHER","x":"` + long + `"}`, "position 39 390",
		}, e.all())
		require.EqualValues(t, 4, c.Stats.Messages.Load())
		require.Eventually(t, func() bool { return len(s.received()) == 5 }, time.Minute, time.Millisecond)
		said := s.received()
		require.JSONEq(t, `{"id":1,"connect":{"token":"t","name":"loadtest"}}`, said[0][2:])
		require.JSONEq(t, `{"id":2,"subscribe":{"channel":"booking:b"}}`, said[1][2:])
		require.Equal(t, []string{"10 hi", "1 {}", "8 \x03\xe8"}, said[2:], "a WebSocket pong, a protocol pong, a close frame")
	}
}

func TestConnectionUnsubscribesChannelsOneByOne(t *testing.T) {
	s := newScript(t, func(s *script, c net.Conn) {
		s.say(c, 1000, text(saysConnected))
		first := s.read(c)
		s.note(first)
		s.say(c, 1000, text(`{"id":2,"subscribe":{}}`+"\n"+`{"id":3,"subscribe":{}}`))
		s.say(c, 1000, text(saysPosition("a", 1)+"\n"+saysPosition("b", 2)+"\n"+saysPosition("a", 1)))
		s.note(s.read(c)) // another channel or the end of the first, in any order
		s.note(s.read(c))
		s.say(c, 1000, text(`{"id":5,"subscribe":{}}`+"\n"+`{"id":4,"unsubscribe":{}}`))
		s.say(c, 1000, text(saysPosition("c", 9)+"\n"+saysPosition("b", 1)))
		s.note(s.read(c))
	})
	a, b, more := &recorder{until: untilCall("position 1 10")}, &recorder{until: untilCall("position 1 10")}, &recorder{until: untilCall("position 9 90")}
	c := connectTo(s, map[string]*recorder{"a": a, "b": b})
	b.until = func(call string) bool {
		if call == "position 2 20" {
			require.True(t, c.Add(&Subscription{Channel: "booking:c", Booking: "c", Listener: more}))
		}
		return call == "position 1 10"
	}
	require.NoError(t, c.Run(t.Context()))
	require.Equal(t, []string{"snapshot  true", "position 1 10"}, a.all(), "nothing arrives from an unsubscribed channel")
	require.Equal(t, []string{"snapshot  true", "position 2 20", "position 1 10"}, b.all())
	require.Equal(t, []string{"snapshot  true", "position 9 90"}, more.all())
	require.False(t, c.Add(&Subscription{Channel: "booking:d"}), "the connection has ended")
}

func TestConnectionReconnectsUnlessTheCloseCodeIsFinal(t *testing.T) {
	closing := func(code int) func(*script, net.Conn) {
		return func(s *script, c net.Conn) {
			s.say(c, 1000, text(saysConnected))
			s.read(c)
			s.say(c, 1000, text(saysSubscribed), append(appendFrameHead(nil, opClose, 2), byte(code>>8), byte(code)))
			s.read(c)
		}
	}
	lost := func(s *script, c net.Conn) { s.say(c, 1000, text(saysConnected)) }
	good := func(s *script, c net.Conn) {
		s.say(c, 1000, text(saysConnected))
		s.read(c)
		s.say(c, 1000, text(saysSubscribed), text(saysPosition("b", 1)))
		s.read(c)
	}
	s := newScript(t, closing(3001), lost, good)
	e := &recorder{until: untilCall("position 1 10")}
	c := connectTo(s, map[string]*recorder{"b": e})
	require.NoError(t, c.Run(t.Context()))
	require.Equal(t, []string{`snapshot {"a":1} true`, "disconnect", `snapshot {"a":1} true`, "position 1 10"}, e.all())
	require.EqualValues(t, 1, c.Stats.Opened.Load())
	require.EqualValues(t, 1, c.Stats.Reconnects.Load())
	require.EqualValues(t, 1, c.Stats.Failed.Load())
	require.Zero(t, c.Stats.Connected.Load())

	s = newScript(t, closing(3501))
	e = &recorder{}
	c = connectTo(s, map[string]*recorder{"b": e})
	var end *TerminalError
	require.ErrorAs(t, c.Run(t.Context()), &end)
	require.EqualValues(t, 1, c.Stats.Refused.Load())
}

func TestConnectionEndsOnInvalidMessages(t *testing.T) {
	for want, act := range map[string]func(s *script, c net.Conn){
		"a frame that servers must not send":  func(s *script, c net.Conn) { s.say(c, 9, []byte{0x81, 0x80, 0, 0, 0, 0}) },
		"unknown opcode 3":                    func(s *script, c net.Conn) { s.say(c, 9, []byte{0x83, 0}) },
		"a frame of 2097152 bytes":            func(s *script, c net.Conn) { s.say(c, 99, appendFrameHead(nil, opText, 2<<20)) },
		"decode":                              func(s *script, c net.Conn) { s.say(c, 99, text("what")) },
		"a reply to an unknown command: id 7": func(s *script, c net.Conn) { s.say(c, 99, text(`{"id":7,"subscribe":{}}`)) },
		"refused: 100 internal": func(s *script, c net.Conn) {
			s.say(c, 99, text(`{"id":1,"error":{"code":100,"message":"internal","temporary":true}}`))
		},
		"without a close frame": func(*script, net.Conn) {},
		"unsubscribed: 2500 go": func(s *script, c net.Conn) {
			s.say(c, 99, text(`{"push":{"channel":"x","unsubscribe":{"code":2500,"reason":"go"}}}`))
		},
		"closed by the server: 3005 expired": func(s *script, c net.Conn) {
			s.say(c, 99, text(`{"push":{"disconnect":{"code":3005,"reason":"expired"}}}`))
		},
		"closed by the server: 1005": func(s *script, c net.Conn) { s.say(c, 99, appendFrameHead(nil, opClose, 0)) },
	} {
		t.Run(want, func(t *testing.T) {
			s := newScript(t, act)
			c := connectTo(s, map[string]*recorder{"b": {}})
			_, err := c.once(t.Context(), s.url, false)
			require.ErrorContains(t, err, want)
		})
	}
}

func TestConnectionEndsWithoutPings(t *testing.T) {
	release := make(chan struct{})
	s := newScript(t, func(s *script, c net.Conn) {
		s.say(c, 1000, text(strings.Replace(saysConnected, "25", "1", 1)))
		s.read(c)
		s.say(c, 1000, text(saysSubscribed))
		<-release
	})
	defer close(release)
	c := connectTo(s, map[string]*recorder{"b": {}})
	c.slack = 10 * time.Millisecond
	subscribed, err := c.once(t.Context(), s.url, false)
	require.ErrorIs(t, err, errSilent)
	require.True(t, subscribed)
}

func TestConnectionEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	s := newScript(t, func(s *script, c net.Conn) {
		s.say(c, 1000, text(saysConnected))
		cancel()
		<-release
	})
	defer close(release)
	require.ErrorIs(t, connectTo(s, map[string]*recorder{"b": {}}).Run(ctx), context.Canceled)
}

func TestHandshakeMustBeAnswered(t *testing.T) {
	for want, answer := range map[string]string{
		"HTTP 403":                   "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
		"HTTP 503":                   "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
		"answered another handshake": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
		"malformed HTTP":             "what\r\n\r\n",
	} {
		t.Run(want, func(t *testing.T) {
			var config net.ListenConfig
			listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
			require.NoError(t, err)
			var done sync.WaitGroup
			done.Go(func() {
				c, err := listener.Accept()
				if !assert.NoError(t, err) {
					return
				}
				_, err = http.ReadRequest(bufio.NewReader(c))
				assert.NoError(t, err)
				_, err = c.Write([]byte(answer))
				assert.NoError(t, err)
				c.Close() //nolint:errcheck // the client may have closed it
			})
			_, err = connectTo(&script{}, nil).once(t.Context(), "http://"+listener.Addr().String(), false)
			require.ErrorContains(t, err, want)
			var end *TerminalError
			require.Equal(t, want == "HTTP 403", errors.As(err, &end))
			done.Wait()
			require.NoError(t, listener.Close())
		})
	}
	_, err := connectTo(&script{}, nil).once(t.Context(), "http://127.0.0.1:1", false)
	require.ErrorContains(t, err, "dial")
}

// TestPositionsAreParsedAsTheDecoderParsesThem compares the fast parser with the decoder.
func TestPositionsAreParsedAsTheDecoderParsesThem(t *testing.T) {
	good := string(AppendPosition(nil, "b", 12, 120))
	p, ok := parsePositionUpdate([]byte(good), "b")
	require.True(t, ok)
	require.Equal(t, PositionUpdate{12, 120}, p)
	p, ok = parsePositionUpdate([]byte(`{"queuePosition":3,"new":"field","estimatedWaitMinutes":30,"more":1,"bookingId":"b","type":"QUEUE_POSITION_UPDATED","via":"scheduling-system"}`), "b")
	require.True(t, ok, "in another order, and with more")
	require.Equal(t, PositionUpdate{3, 30}, p)
	for _, bad := range []string{
		"", "{", "{}", "[]", good[:len(good)-1], good + " ", good + "}",
		strings.Replace(good, `"b"`, `"c"`, 1), strings.Replace(good, "12,", `"12",`, 1), strings.Replace(good, "12,", "1.2,", 1),
		strings.Replace(good, "12,", "1e2,", 1), strings.Replace(good, "12,", "-12,", 1), strings.Replace(good, "12,", "12345678901,", 1),
		strings.Replace(good, "UPDATED", "GONE", 1), strings.Replace(good, "scheduling", "other", 1), strings.Replace(good, "12,", "12;", 1),
		strings.Replace(good, `"b"`, `"\u0062"`, 1), strings.Replace(good, `,"estimatedWaitMinutes":120`, "", 1), strings.Replace(good, "120", `{"low":1}`, 1),
	} {
		_, ok := parsePositionUpdate([]byte(bad), "b")
		require.False(t, ok, bad)
	}
	// Change any byte: if the fast parser accepts the data, the decoder reads the same.
	require.NoError(t, quick.Check(func(at uint16, with byte) bool {
		data := []byte(good)
		data[int(at)%len(data)] = with
		p, ok := parsePositionUpdate(data, "b")
		if !ok {
			return true
		}
		var d Publication
		if json.Unmarshal(data, &d) != nil {
			return false
		}
		return d.QueuePosition != nil && d.EstimatedWaitMinutes != nil && p == PositionUpdate{*d.QueuePosition, *d.EstimatedWaitMinutes} && d.BookingID == "b"
	}, &quick.Config{MaxCount: 20_000}))
}

func TestCloseCodesSayWhetherToReconnect(t *testing.T) {
	for code, final := range map[int]bool{1000: false, 1001: false, 3000: false, 3008: false, 3499: false, 3500: true, 3501: true, 3999: true, 4000: false, 4500: true} {
		var end *TerminalError
		if final {
			require.ErrorAs(t, closeError(code, ""), &end, "%d", code)
		} else {
			require.NotErrorAs(t, closeError(code, ""), &end, "%d", code)
		}
	}
}
