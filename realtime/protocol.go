package realtime

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/centrifugal/protocol"
	"github.com/coder/websocket"

	"nowserving/models"
)

const protobufSubprotocol = "centrifuge-protobuf"

// format is the encoding of a connection.
type format bool

const (
	formatJSON     format = false
	formatProtobuf format = true
)

// headerRoom is the room at the beginning of a frame for its header, as long as the
// longest header.
const headerRoom = "0123456789"

// seal puts the WebSocket header of one whole message (RFC 6455, section 5.2)
// into its room and returns the frame. Positions are sent so often that
// the library's locks and buffers would cost as much as all else but the system
// call; everything else about the connection is left to it.
func (f format) seal(frame []byte) []byte {
	opcode := byte(websocket.MessageText)
	if f == formatProtobuf {
		opcode = byte(websocket.MessageBinary)
	}
	const final, two, eight = 0x80, 126, 127
	n := len(frame) - len(headerRoom)
	switch {
	case n < two:
		frame = frame[len(headerRoom)-2:]
		frame[1] = byte(n)
	case n <= math.MaxUint16:
		frame = frame[len(headerRoom)-4:]
		frame[1] = two
		binary.BigEndian.PutUint16(frame[2:], uint16(n))
	default:
		frame = frame[len(headerRoom)-10:]
		frame[1] = eight
		binary.BigEndian.PutUint64(frame[2:], uint64(n))
	}
	frame[0] = final | opcode
	return frame
}

// disconnect is the code and reason of a closed connection. The client's library
// reconnects after 3000–3499 and gives up after 3500–3999. The numbers are
// Centrifuge's.
type disconnect struct {
	code   websocket.StatusCode
	reason string
}

// frame encodes the close frame (RFC 6455, section 5.5.1).
func (f disconnect) frame() []byte {
	const final, opClose = 0x80, 8
	frame := []byte{final | opClose, byte(2 + len(f.reason))} // reasons are short
	return append(binary.BigEndian.AppendUint16(frame, uint16(f.code)), f.reason...)
}

var (
	closeShutdown     = disconnect{3001, "shutdown"}
	closeSilent       = disconnect{3002, "no connect command"}
	closeUnchecked    = disconnect{3004, "credential can't be checked"}
	closeExpired      = disconnect{3005, "connection expired"}
	closeSlow         = disconnect{3008, "slow"}
	closeGone         = disconnect{3011, "force reconnect"}
	closeNoPong       = disconnect{3012, "no pong"}
	closeChanged      = disconnect{3014, "state invalidated"} // the library drops its token, whose role may be old
	closeBadToken     = disconnect{3500, "bad token"}
	closeRevoked      = disconnect{3501, "revoked"}
	closeBadRequest   = disconnect{3502, "bad request"}
	closeOrigin       = disconnect{3503, "origin not allowed"}
	closeTooMany      = disconnect{3504, "too many connections"}
	closeNotAvailable = disconnect{3508, "not available"}
)

// The errors of the protocol, by their numbers in the client libraries.
var (
	errInternal          = &protocol.Error{Code: 100, Message: "internal server error", Temporary: true}
	errUnknownChannel    = &protocol.Error{Code: 102, Message: "unknown channel"}
	errPermissionDenied  = &protocol.Error{Code: 103, Message: "permission denied"}
	errAlreadySubscribed = &protocol.Error{Code: 105, Message: "already subscribed"}
	errLimitExceeded     = &protocol.Error{Code: 106, Message: "limit exceeded"}
	errNotAvailable      = &protocol.Error{Code: 108, Message: "not available"}
	errTooManyRequests   = &protocol.Error{Code: 111, Message: "too many requests", Temporary: true}
	errTokenExpired      = &protocol.Error{Code: 109, Message: "token expired"}
)

// passing returns the error for a temporary failure, after which the client tries
// again, and nil for any other. Errors without a code are temporary.
func passing(err error) *protocol.Error {
	switch models.CodeOf(err) {
	case models.CodeInternal, models.CodeUnavailable:
		return errInternal
	case models.CodeTooManyRequests:
		return errTooManyRequests
	default:
		return nil
	}
}

// errorOf returns the error for a refused subscription. The library subscribes again
// only after a temporary one.
func errorOf(err error) *protocol.Error {
	if temporary := passing(err); temporary != nil {
		return temporary
	}
	switch models.CodeOf(err) {
	case models.CodeBookingNotFound, models.CodeResourceMissing, models.CodeDisplayMissing, models.CodeOrgMissing:
		return errUnknownChannel
	default:
		return errPermissionDenied
	}
}

// channelKind is the kind of a channel.
type channelKind uint8

const (
	channelBooking channelKind = iota + 1
	channelQueue
	channelDisplay
)

// parseChannel parses the name of a channel. Accepted names need no escaping in JSON.
func parseChannel(name string) (kind channelKind, id string, ok bool) {
	prefix, id, ok := strings.Cut(name, ":")
	if !ok || id == "" || len(id) > 64 {
		return 0, "", false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return 0, "", false
		}
	}
	switch prefix {
	case "booking":
		return channelBooking, id, true
	case "queue":
		return channelQueue, id, true
	case "display":
		return channelDisplay, id, true
	}
	return 0, "", false
}

// decode calls handle with each command of a frame until it returns false.
func (f format) decode(frame []byte, handle func(*protocol.Command) bool) error {
	var decoder protocol.CommandDecoder = protocol.NewJSONCommandDecoder(frame)
	if f == formatProtobuf {
		decoder = protocol.NewProtobufCommandDecoder(frame)
	}
	for {
		command, err := decoder.Decode()
		if command != nil && !handle(command) {
			return nil
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// reply encodes an answer, without the framing.
func (f format) reply(r *protocol.Reply) ([]byte, error) {
	if f == formatProtobuf {
		return protocol.DefaultProtobufReplyEncoder.Encode(r)
	}
	return protocol.DefaultJsonReplyEncoder.Encode(r)
}

// ping is an empty reply.
func (f format) ping() []byte {
	if f == formatProtobuf {
		return []byte{}
	}
	return []byte("{}")
}

// appendMessage adds an encoded message to a frame.
func (f format) appendMessage(frame, message []byte) []byte {
	if f == formatProtobuf {
		frame = binary.AppendUvarint(frame, uint64(len(message)))
	} else if len(frame) > len(headerRoom) {
		frame = append(frame, '\n')
	}
	return append(frame, message...)
}

// The field tags of Reply.push, Push.channel, Push.pub and Publication.data.
const (
	tagReplyPush   = 4<<3 | 2
	tagPushChannel = 2<<3 | 2
	tagPushPub     = 4<<3 | 2
	tagPubData     = 4<<3 | 2
)

// appendPush appends a publication to a frame. Every position takes this path, so it
// writes the bytes of protocol.Reply itself.
func (f format) appendPush(frame []byte, channel string, data []byte) []byte {
	if f == formatJSON {
		if len(frame) > len(headerRoom) {
			frame = append(frame, '\n')
		}
		frame = append(frame, `{"push":{"channel":"`...)
		frame = append(frame, channel...)
		frame = append(frame, `","pub":{"data":`...)
		frame = append(frame, data...)
		return append(frame, `}}}`...)
	}
	pub := 1 + sizeVarint(len(data)) + len(data)
	push := 1 + sizeVarint(len(channel)) + len(channel) + 1 + sizeVarint(pub) + pub
	frame = binary.AppendUvarint(frame, uint64(1+sizeVarint(push)+push))
	frame = binary.AppendUvarint(append(frame, tagReplyPush), uint64(push))
	frame = binary.AppendUvarint(append(frame, tagPushChannel), uint64(len(channel)))
	frame = append(frame, channel...)
	frame = binary.AppendUvarint(append(frame, tagPushPub), uint64(pub))
	frame = binary.AppendUvarint(append(frame, tagPubData), uint64(len(data)))
	return append(frame, data...)
}

func sizeVarint(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// appendPosition appends the data of QUEUE_POSITION_UPDATED. age is that of the
// position, in milliseconds, or -1 if it comes from a live mirror.
func appendPosition(b []byte, bookingID string, position, minutes int, age int64) []byte {
	b = append(b, `{"via":"`+models.Via+`","type":"`+string(models.EventPositionUpdated)+`","bookingId":"`...)
	b = append(b, bookingID...)
	b = append(b, `","queuePosition":`...)
	b = strconv.AppendInt(b, int64(position), 10)
	b = append(b, `,"estimatedWaitMinutes":`...)
	b = strconv.AppendInt(b, int64(position)*int64(minutes), 10)
	if age >= 0 {
		b = append(b, `,"queuePositionAgeSeconds":`...)
		b = strconv.AppendFloat(b, float64(age)/1000, 'f', -1, 64)
	}
	return append(b, '}')
}
