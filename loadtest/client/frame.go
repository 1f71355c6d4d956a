package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the WebSocket handshake is defined with it; it protects nothing
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/centrifugal/protocol"
)

// The opcodes of WebSocket frames (RFC 6455).
const (
	opContinuation byte = 0x0
	opText         byte = 0x1
	opBinary       byte = 0x2
	opClose        byte = 0x8
	opPing         byte = 0x9
	opPong         byte = 0xa
)

// frame is one frame from a server.
type frame struct {
	opcode  byte
	final   bool
	payload []byte
}

// parseFrame parses the frame at the start of data. size is the length of the frame. It is
// larger than data if the frame is incomplete, and zero if the length is not known yet.
func parseFrame(data []byte) (f frame, size int, err error) {
	if len(data) < 2 {
		return frame{}, 0, nil
	}
	if data[0]&0x70 != 0 || data[1]&0x80 != 0 {
		return frame{}, 0, errors.New("a frame that servers must not send")
	}
	head, length := 2, uint64(data[1])
	switch length {
	case 126:
		if len(data) < 4 {
			return frame{}, 0, nil
		}
		head, length = 4, uint64(binary.BigEndian.Uint16(data[2:]))
	case 127:
		if len(data) < 10 {
			return frame{}, 0, nil
		}
		head, length = 10, binary.BigEndian.Uint64(data[2:])
	}
	if length > maxFrame {
		return frame{}, 0, fmt.Errorf("a frame of %d bytes", length)
	}
	size = head + int(length)
	if size > len(data) {
		return frame{}, size, nil
	}
	return frame{opcode: data[0] & 0x0f, final: data[0]&0x80 != 0, payload: data[head:size]}, size, nil
}

// appendFrameHead appends the header of an unmasked frame, as servers send it.
func appendFrameHead(b []byte, opcode byte, length int) []byte {
	b = append(b, 0x80|opcode)
	switch {
	case length < 126:
		return append(b, byte(length))
	case length < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(length))
	default:
		return binary.BigEndian.AppendUint64(append(b, 127), uint64(length))
	}
}

// writeFrame sends a masked frame, as the protocol requires of clients.
func writeFrame(conn net.Conn, opcode byte, payload []byte) error {
	b := appendFrameHead(make([]byte, 0, len(payload)+14), opcode, len(payload))
	b[1] |= 0x80
	var mask [4]byte
	binary.LittleEndian.PutUint32(mask[:], mathrand.Uint32()) //nolint:gosec // a mask keeps no secret
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	if err := conn.SetWriteDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	_, err := conn.Write(b)
	return err
}

// dialWebSocket opens a live connection to a node. early is the data that arrived together
// with the handshake. If hello is set, it is sent instead of a handshake.
func dialWebSocket(ctx context.Context, node string, kind protocol.Type, hello []byte) (conn net.Conn, early []byte, err error) {
	return dialWith(ctx, net.Dialer{}, node, kind, hello)
}

// dialSmall is dialWebSocket with small buffers.
func dialSmall(ctx context.Context, node string, kind protocol.Type, hello []byte) (conn net.Conn, early []byte, err error) {
	return dialWith(ctx, net.Dialer{Control: shrink}, node, kind, hello)
}

func dialWith(ctx context.Context, dialer net.Dialer, node string, kind protocol.Type, hello []byte) (conn net.Conn, early []byte, err error) {
	address, err := url.Parse(node)
	if err != nil {
		return nil, nil, fmt.Errorf("dial: %w", err)
	}
	host, port := address.Hostname(), address.Port()
	if port == "" {
		port = "80"
		if address.Scheme == "https" {
			port = "443"
		}
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	dialer.KeepAlive = -1 // pings do that
	conn, err = dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, nil, fmt.Errorf("dial: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		conn.Close() //nolint:errcheck // the dialer meets the closed connection
	})
	defer stop()
	if address.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12})
	}
	if hello != nil {
		_, err = conn.Write(hello)
	} else {
		early, err = upgrade(conn, address, kind)
	}
	if err != nil {
		conn.Close() //nolint:errcheck // the connection failed already
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, nil, fmt.Errorf("dial: %w", err)
	}
	return conn, early, nil
}

const (
	// smallSegment is the largest TCP segment of a connection with small buffers, as on most
	// networks. On a loopback interface one segment would be larger than the whole buffer, and
	// the kernel would send only at long intervals.
	smallSegment = 1400
	// smallBuffer is the receive buffer. The kernel doubles it.
	smallBuffer = 2 << 10
)

// shrink sets small buffers on a socket.
func shrink(_, _ string, c syscall.RawConn) error {
	var err error
	failed := c.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, smallSegment),
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, smallBuffer),
		)
	})
	return errors.Join(failed, err)
}

// upgrade performs the WebSocket handshake.
func upgrade(conn net.Conn, address *url.URL, kind protocol.Type) (early []byte, err error) {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return nil, err
	}
	key := base64.StdEncoding.EncodeToString(nonce[:])
	var request bytes.Buffer
	path := "/connection/websocket"
	if kind == protocol.TypeProtobuf {
		path += "?format=protobuf"
	}
	fmt.Fprintf(&request, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", path, address.Host, key)
	if kind == protocol.TypeProtobuf {
		request.WriteString("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n")
	}
	request.WriteString("\r\n")
	if _, err := conn.Write(request.Bytes()); err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, readBuffer)
	response, err := http.ReadResponse(reader, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, err
	}
	switch response.StatusCode {
	case http.StatusSwitchingProtocols:
	case http.StatusUnauthorized, http.StatusForbidden:
		err = &TerminalError{fmt.Sprintf("the server refused the connection: HTTP %d", response.StatusCode)}
	default:
		err = fmt.Errorf("the server answered HTTP %d", response.StatusCode)
	}
	if err != nil {
		return nil, errors.Join(err, response.Body.Close())
	}
	if response.Header.Get("Sec-WebSocket-Accept") != acceptKey(key) {
		return nil, errors.New("the server answered another handshake")
	}
	early = make([]byte, reader.Buffered())
	if _, err := io.ReadFull(reader, early); err != nil {
		return nil, err
	}
	return early, nil
}

// acceptKey returns the accept key that a server computes from the key of a handshake.
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// PositionUpdate is a pushed position.
type PositionUpdate struct {
	Position int
	Minutes  int
}

// parsePositionUpdate parses the data of a position of a booking without a decoder, because
// most publications have this form. It returns false for any other form; the decoder then
// reads it.
func parsePositionUpdate(data []byte, booking string) (p PositionUpdate, ok bool) {
	if len(data) == 0 || data[0] != '{' {
		return PositionUpdate{}, false
	}
	const via, kind, id, position, minutes, all = 1, 2, 4, 8, 16, 31
	seen := 0
	for i := 1; ; i++ {
		key, rest, ok := cutString(data[i:])
		if !ok || len(rest) < 2 || rest[0] != ':' {
			return PositionUpdate{}, false
		}
		var text []byte
		number := 0
		if rest[1] == '"' {
			text, rest, ok = cutString(rest[1:])
		} else {
			number, rest, ok = cutNumber(rest[1:])
		}
		if !ok || len(rest) == 0 {
			return PositionUpdate{}, false
		}
		switch string(key) {
		case "via":
			ok, seen = string(text) == "scheduling-system", seen|via
		case "type":
			ok, seen = string(text) == "QUEUE_POSITION_UPDATED", seen|kind
		case "bookingId":
			ok, seen = string(text) == booking, seen|id
		case "queuePosition":
			ok, seen, p.Position = text == nil, seen|position, number
		case "estimatedWaitMinutes":
			ok, seen, p.Minutes = text == nil, seen|minutes, number
		}
		if !ok {
			return PositionUpdate{}, false
		}
		i = len(data) - len(rest)
		if rest[0] == '}' {
			return p, len(rest) == 1 && seen == all
		}
		if rest[0] != ',' {
			return PositionUpdate{}, false
		}
	}
}

// cutString returns the content of a JSON string without escapes, and the rest of the data.
func cutString(data []byte) (text, rest []byte, ok bool) {
	if len(data) == 0 || data[0] != '"' {
		return nil, nil, false
	}
	for i, c := range data[1:] {
		if c == '"' {
			return data[1 : i+1], data[i+2:], true
		}
		if c == '\\' || c < ' ' {
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// cutNumber returns a whole number and the rest of the data.
func cutNumber(data []byte) (n int, rest []byte, ok bool) {
	const digits = 9
	for i, c := range data {
		if c < '0' || c > '9' {
			plain := i > 0 && (i == 1 || data[0] != '0') && c != '.' && c != 'e' && c != 'E'
			return n, data[i:], plain
		}
		if i == digits {
			break
		}
		n = n*10 + int(c-'0')
	}
	return 0, nil, false
}

// The JSON around the channel and data of a publication.
const (
	pushHead   = `{"push":{"channel":`
	pushMiddle = `,"pub":{"data":`
	pushTail   = `}}}`
)

// cutPushJSON returns the channel and data of a publication in JSON.
func cutPushJSON(reply []byte) (channel, data []byte, ok bool) {
	if len(reply) < len(pushHead) || string(reply[:len(pushHead)]) != pushHead {
		return nil, nil, false
	}
	channel, rest, ok := cutString(reply[len(pushHead):])
	if !ok || len(rest) < len(pushMiddle)+len(pushTail) || string(rest[:len(pushMiddle)]) != pushMiddle {
		return nil, nil, false
	}
	data, ok = bytes.CutSuffix(rest[len(pushMiddle):], []byte(pushTail))
	return channel, data, ok
}

// The tags of Reply.push, Push.channel, Push.pub and Publication.data.
const (
	replyPush   = 4<<3 | 2
	pushChannel = 2<<3 | 2
	pushPub     = 4<<3 | 2
	pubData     = 4<<3 | 2
)

// cutPushProtobuf returns the channel and data of a publication in Protobuf.
func cutPushProtobuf(reply []byte) (channel, data []byte, ok bool) {
	push, rest, ok := cutField(reply, replyPush)
	if !ok || len(rest) > 0 {
		return nil, nil, false
	}
	if channel, push, ok = cutField(push, pushChannel); !ok {
		return nil, nil, false
	}
	pub, rest, ok := cutField(push, pushPub)
	if !ok || len(rest) > 0 {
		return nil, nil, false
	}
	data, rest, ok = cutField(pub, pubData)
	return channel, data, ok && len(rest) == 0
}

// cutField returns the value of a length-delimited field if it has the wanted tag.
func cutField(data []byte, tag byte) (value, rest []byte, ok bool) {
	if len(data) == 0 || data[0] != tag {
		return nil, nil, false
	}
	return cutDelimited(data[1:])
}

// cutDelimited returns a value that is preceded by its length.
func cutDelimited(data []byte) (value, rest []byte, ok bool) {
	length, n := binary.Uvarint(data)
	if n <= 0 || length > uint64(len(data)-n) {
		return nil, nil, false
	}
	return data[n : n+int(length)], data[n+int(length):], true
}

// delimited returns data preceded by its length.
func delimited(data []byte) []byte {
	return append(binary.AppendUvarint(make([]byte, 0, len(data)+4), uint64(len(data))), data...)
}
