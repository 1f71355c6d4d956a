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
	"time"
)

const (
	// maxFrame is the longest frame a client may send.
	maxFrame = 32 << 10
	// bufferSize is that of the read and of the write buffer of a connection.
	// Commands and positions are shorter; longer frames take a few more system
	// calls. net/http's own buffers are eight times as large.
	bufferSize = 512
)

// slimHijacker hands a connection over with small buffers, and with a limit on
// how long one write may be stuck.
type slimHijacker struct {
	http.ResponseWriter
	writeTimeout time.Duration
	conn         net.Conn // set by Hijack
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
	// What the client has sent already moves into the new buffer.
	early, err := large.Peek(large.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("take over the connection: %w", err), conn.Close())
	}
	from := io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn)
	reader := bufio.NewReaderSize(from, max(bufferSize, len(early)))
	if _, err := reader.Peek(len(early)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("take over the connection: %w", err), conn.Close())
	}
	limited := &limitedConn{conn, s.writeTimeout}
	s.conn = limited
	return limited, bufio.NewReadWriter(reader, bufio.NewWriterSize(limited, bufferSize)), nil
}

// limitedConn gives every write the same time.
type limitedConn struct {
	net.Conn
	writeTimeout time.Duration
}

// Write implements net.Conn.
func (l *limitedConn) Write(p []byte) (int, error) {
	if err := l.SetWriteDeadline(time.Now().Add(l.writeTimeout)); err != nil {
		return 0, fmt.Errorf("limit a write: %w", err)
	}
	return l.Conn.Write(p)
}

// bearerOf returns the token of the Authorization header, if there is one.
func bearerOf(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}
