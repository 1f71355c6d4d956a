package client

import (
	"fmt"
	"testing"

	"github.com/centrifugal/protocol"
	"github.com/stretchr/testify/require"
)

func TestPushesAreEncodedAsTheProtocolEncodesThem(t *testing.T) {
	for _, kind := range []protocol.Type{protocol.TypeJSON, protocol.TypeProtobuf} {
		var encoder protocol.ReplyEncoder = protocol.NewJSONReplyEncoder()
		if kind == protocol.TypeProtobuf {
			encoder = protocol.NewProtobufReplyEncoder()
		}
		framing := protocol.GetDataEncoder(kind)
		var message []byte
		for i, position := range []int{23, 24} {
			booking := fmt.Sprintf("b%019d", i)
			data := AppendPosition(nil, booking, position, 10*position)
			message = AppendPush(message, kind, []byte("booking:"+booking), data)
			reply, err := encoder.Encode(&protocol.Reply{Push: &protocol.Push{Channel: "booking:" + booking, Pub: &protocol.Publication{Data: data}}})
			require.NoError(t, err)
			require.NoError(t, framing.Encode(reply))
		}
		data := AppendMessage(nil, kind, message)
		f, size, err := parseFrame(data)
		require.NoError(t, err)
		require.Equal(t, len(data), size)
		require.True(t, f.final)
		require.Equal(t, string(framing.Finish()), string(f.payload))
	}
}
