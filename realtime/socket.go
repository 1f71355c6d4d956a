package realtime

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// maxKept bounds what a socket keeps for a client that does not read, in bytes:
	// the frame that did not fit, and the control frames after it.
	maxKept = 256 << 10
	// drainChunk is how many bytes have to be sent within one write timeout.
	drainChunk = 16 << 10
)

var errFull = errors.New("the client takes nothing")

// socket is the connection under a WebSocket. Its Write never blocks: what the kernel
// does not take at once is kept, and sent by a goroutine that exists only for that.
// So no client can block a worker that serves many.
type socket struct {
	net.Conn
	raw syscall.RawConn
	hub *Hub
	// drained is called when everything that was kept has been sent.
	drained func()
	// between is true while no frame of the client has begun.
	between atomic.Bool

	mu       sync.Mutex
	kept     []byte
	draining bool
	err      error // why nothing more can be written

	// The write in progress, so that its closure need not be allocated again.
	write func(fd uintptr)
	data  []byte
	taken int
	errno error
}

func newSocket(conn net.Conn, h *Hub) (*socket, error) {
	s := &socket{Conn: conn, hub: h}
	raw, ok := conn.(interface {
		syscall.Conn
		SetWriteBuffer(bytes int) error
	})
	if !ok {
		return nil, fmt.Errorf("a %T is no socket", conn)
	}
	err := raw.SetWriteBuffer(h.opts.SocketBuffer)
	if err != nil {
		return nil, fmt.Errorf("limit what the kernel holds: %w", err)
	}
	if s.raw, err = raw.SyscallConn(); err != nil {
		return nil, fmt.Errorf("reach the socket: %w", err)
	}
	s.write = func(fd uintptr) {
		for {
			s.taken, s.errno = syscall.Write(int(fd), s.data)
			if !errors.Is(s.errno, syscall.EINTR) {
				return // the result is ignored: no caller waits for it
			}
		}
	}
	return s, nil
}

// Read implements net.Conn. The first bytes of a frame start its deadline.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 && s.between.Load() {
		s.awaitFrame(true)
	}
	return n, err
}

// awaitFrame sets the deadline of a frame that has begun, or clears it until the next
// one begins.
func (s *socket) awaitFrame(begun bool) {
	var by time.Time
	if begun {
		by = time.Now().Add(s.hub.opts.FrameTimeout)
	}
	s.between.Store(!begun)
	if err := s.SetReadDeadline(by); err != nil && !errors.Is(err, net.ErrClosed) {
		s.hub.opts.Log.Debug("limit the time of a frame", "error", err)
	}
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (int, error) {
	_, err := s.send(p)
	return len(p), err
}

// send writes what the kernel takes at once and keeps the rest. It reports whether
// something was kept; drained is called when that has been sent.
func (s *socket) send(p []byte) (busy bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.put(p)
	return s.draining, err
}

// put is send without its result. s.mu must be held.
func (s *socket) put(p []byte) error {
	if s.err != nil || len(p) == 0 {
		return s.err
	}
	if !s.draining {
		var n int
		if n, s.err = s.try(p); s.err != nil || n == len(p) {
			return s.err
		}
		p = p[n:]
	}
	if len(s.kept)+len(p) > maxKept {
		s.err = errFull
		return s.err
	}
	s.kept = append(s.kept, p...)
	if !s.draining {
		s.draining = true
		s.hub.wg.Go(s.drain)
	}
	return nil
}

// try writes what the kernel takes at once. s.mu must be held.
func (s *socket) try(p []byte) (int, error) {
	s.data = p
	// Control, because Write prepares to block, which costs as much as a lock.
	err := s.raw.Control(s.write)
	s.data = nil
	switch {
	case err != nil:
		return 0, fmt.Errorf("reach the socket: %w", err)
	case errors.Is(s.errno, syscall.EAGAIN):
		return 0, nil
	case s.errno != nil:
		return 0, fmt.Errorf("write: %w", s.errno)
	}
	return s.taken, nil
}

// drain sends what is kept. If the client reads nothing for the write timeout, it
// closes the connection, which ends the reading goroutine.
func (s *socket) drain() {
	for {
		s.mu.Lock()
		chunk := s.kept
		s.kept = nil
		if len(chunk) == 0 {
			s.draining = false
		}
		s.mu.Unlock()
		if len(chunk) == 0 {
			s.drained()
			return
		}
		if err := s.flush(chunk); err != nil {
			s.mu.Lock()
			s.err, s.kept = err, nil
			s.mu.Unlock()
			s.Close() //nolint:errcheck // s.err has the cause
			return
		}
	}
}

// flush writes everything, however long the client takes, as long as it reads some of
// it within each write timeout.
func (s *socket) flush(p []byte) error {
	for len(p) > 0 {
		chunk := p[:min(len(p), drainChunk)]
		if err := s.SetWriteDeadline(time.Now().Add(s.hub.opts.WriteTimeout)); err != nil {
			return fmt.Errorf("limit a write: %w", err)
		}
		if _, err := s.Conn.Write(chunk); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p = p[len(chunk):]
	}
	if err := s.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift the limit of a write: %w", err)
	}
	return nil
}

// busy reports whether something that was kept is not sent yet.
func (s *socket) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// await waits until the client has sent something or has disconnected. It uses so
// little stack that a waiting goroutine stays as small as possible.
func (s *socket) await() bool {
	err := s.raw.Read(func(fd uintptr) bool {
		var b [1]byte
		for {
			_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	return err == nil
}
