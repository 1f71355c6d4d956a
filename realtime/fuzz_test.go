package realtime_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/realtime"
)

// frameEnd parts the frames of a fuzzed conversation. No UTF-8 text holds it.
const frameEnd = 0xff

// lastID is the id of the command that ends a fuzzed conversation.
const lastID = 1<<32 - 1

// FuzzLive says anything to the hub. Whatever it hears, it goes on: it either
// answers the ping that comes last, or closes the connection and says why; and
// of nobody who has gone it keeps anything.
func FuzzLive(f *testing.F) {
	w := newWorld(f, miniredis.RunT(f).Addr())
	w.screens["d1"] = nil
	booking := w.join("r1")
	n := w.node(realtime.Options{})

	subscribe := func(id uint32, channel string) *protocol.Command {
		return &protocol.Command{Id: id, Subscribe: &protocol.SubscribeRequest{Channel: channel, Recover: true, Epoch: "old", Offset: 9}}
	}
	for _, commands := range [][]*protocol.Command{
		{subscribe(2, "booking:"+booking), subscribe(3, "queue:r1"), subscribe(4, "display:d1"), subscribe(5, "booking:none")},
		{subscribe(2, "booking:"+booking), {Id: 3, Unsubscribe: &protocol.UnsubscribeRequest{Channel: "booking:" + booking}}, subscribe(4, "booking:"+booking)},
		{{Id: 2, Refresh: &protocol.RefreshRequest{Token: "patient"}}, {Id: 3, Refresh: &protocol.RefreshRequest{Token: "expired"}}, {Id: 4, Refresh: &protocol.RefreshRequest{Token: "down"}}},
		{{Id: 2, Connect: &protocol.ConnectRequest{Token: "patient", Data: protocol.Raw(`{}`)}}},
		{{Id: 2, Publish: &protocol.PublishRequest{Channel: "queue:r1", Data: protocol.Raw(`{}`)}}, {Id: 3, Presence: &protocol.PresenceRequest{}}, {Id: 4, PresenceStats: &protocol.PresenceStatsRequest{}}},
		{{Id: 2, History: &protocol.HistoryRequest{Channel: "queue:r1"}}, {Id: 3, Rpc: &protocol.RPCRequest{Method: "x", Data: protocol.Raw(`1`)}}, {Id: 4, SubRefresh: &protocol.SubRefreshRequest{}}},
		{{Send: &protocol.SendRequest{Data: protocol.Raw(`{}`)}}}, {{}}, {},
	} {
		for _, protobuf := range []bool{false, true} {
			for _, introduced := range []bool{false, true} {
				f.Add(protobuf, introduced, encodeCommands(f, protobuf, commands...))
			}
		}
	}
	f.Add(false, true, []byte("{}\xff{}\xff"+`{"id":2,"subscribe":{"channel":"booking:b1"}}`+"\xff"+`{"id":3`))
	f.Add(true, true, []byte{200, 1, 2, 3})
	f.Add(false, false, bytes.Repeat([]byte{' '}, 33<<10))

	f.Fuzz(func(t *testing.T, protobuf, introduced bool, conversation []byte) {
		c := dial(t, n.url+map[bool]string{true: "?format=protobuf"}[protobuf], nil)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		over := make(chan error, 1)
		last := encodeCommands(t, protobuf, &protocol.Command{Id: lastID, Ping: &protocol.PingRequest{}})
		answer := encodeReply(t, protobuf, &protocol.Reply{Id: lastID, Ping: &protocol.PingResult{}})
		go func() { over <- hearUntil(ctx, c, answer) }()
		frames := bytes.Split(conversation, []byte{frameEnd})
		if introduced {
			frames = append([][]byte{encodeCommands(t, protobuf, &protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{Token: "patient"}})}, frames...)
		}
		kind := websocket.MessageText
		if protobuf {
			kind = websocket.MessageBinary
		}
		for _, frame := range append(frames, last) {
			if c.ws.Write(ctx, kind, frame) != nil {
				break // it has closed the connection
			}
		}
		err := <-over
		var closed websocket.CloseError
		if err != nil && errors.As(err, &closed) {
			assert.Contains(t, []websocket.StatusCode{3005, 3500, 3502, 3508, websocket.StatusMessageTooBig}, closed.Code, closed.Reason)
		} else {
			require.NoError(t, err)
		}
		c.ws.CloseNow() //nolint:errcheck // the server may have closed it
		require.Eventually(t, func() bool {
			s := n.hub.Stats()
			return s.Connections == 0 && s.Subscriptions == 0
		}, patience, time.Millisecond)
	})
}

// hearUntil reads until an answer comes.
func hearUntil(ctx context.Context, c *wire, answer []byte) error {
	for {
		_, frame, err := c.ws.Read(ctx)
		if err != nil || bytes.Contains(frame, answer) {
			return err
		}
	}
}

func encodeCommands(t testing.TB, protobuf bool, commands ...*protocol.Command) []byte {
	t.Helper()
	var encoder protocol.CommandEncoder = protocol.NewJSONCommandEncoder()
	var between []byte
	if protobuf {
		encoder = protocol.NewProtobufCommandEncoder() // with the length in front
	} else {
		between = []byte("\n")
	}
	list := make([][]byte, len(commands))
	for i, command := range commands {
		var err error
		list[i], err = encoder.Encode(command)
		require.NoError(t, err)
	}
	return bytes.Join(list, between)
}

func encodeReply(t testing.TB, protobuf bool, reply *protocol.Reply) []byte {
	t.Helper()
	var encoder protocol.ReplyEncoder = protocol.DefaultJsonReplyEncoder
	if protobuf {
		encoder = protocol.DefaultProtobufReplyEncoder
	}
	data, err := encoder.Encode(reply)
	require.NoError(t, err)
	return data
}
