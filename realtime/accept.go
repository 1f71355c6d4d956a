package realtime

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

const (
	// maxFrame is the longest frame a client may send.
	maxFrame = 32 << 10
	// readBuffer and writeBuffer are the sizes of a connection's buffers, in
	// bytes; net/http's own have 4 KiB each. Frames that are longer than the read
	// buffer take a few more system calls. Only control frames go through the
	// write buffer, and none is longer than it is, so that each reaches the socket
	// in one piece, between the frames that conn.send makes.
	readBuffer  = 256
	writeBuffer = 128
)

// slimHijacker hands over a connection as a socket with small buffers.
type slimHijacker struct {
	http.ResponseWriter
	hub *Hub

	// Set by Hijack.
	socket *socket
	reader *bufio.Reader
	early  bool // the client had sent something before it was answered
}

// WriteHeader writes the header at once, as frameworks that delay it must
// before a connection is handed over.
func (s *slimHijacker) WriteHeader(status int) {
	s.ResponseWriter.WriteHeader(status)
	if lazy, ok := s.ResponseWriter.(interface{ WriteHeaderNow() }); ok && status == http.StatusSwitchingProtocols {
		lazy.WriteHeaderNow()
	}
}

// Hijack implements http.Hijacker.
func (s *slimHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, large, err := http.NewResponseController(s.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take over the connection: %w", err)
	}
	// Bytes that the client has already sent move into the new buffer.
	early, err := large.Peek(large.Reader.Buffered())
	if err == nil {
		s.socket, err = newSocket(conn, s.hub)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("take over the connection: %w", err), conn.Close())
	}
	s.early = len(early) > 0
	s.socket.awaitFrame(s.early)
	from := io.Reader(s.socket)
	if s.early {
		from = io.MultiReader(bytes.NewReader(bytes.Clone(early)), s.socket)
	}
	s.reader = bufio.NewReaderSize(from, max(readBuffer, len(early)))
	if _, err := s.reader.Peek(len(early)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("take over the connection: %w", err), conn.Close())
	}
	return s.socket, bufio.NewReadWriter(s.reader, bufio.NewWriterSize(s.socket, writeBuffer)), nil
}

// controlled records that a whole control frame has been read. The reading goroutine
// calls it.
func (s *slimHijacker) controlled() { s.socket.awaitFrame(s.reader.Buffered() > 0) }

// bearerOf returns the token of the Authorization header, or "". If the header
// appears twice, the request has no valid token.
func bearerOf(r *http.Request) string {
	scheme, token, ok := strings.Cut(strings.Join(r.Header.Values("Authorization"), ", "), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
