package realtime

import (
	"runtime"
	"sync"
)

// blockSize is how many connections a worker takes at once.
const blockSize = 64

// writeScheduler holds the connections that have something to be sent, in the order
// in which they came to have it. A few workers serve them, and exist only while
// there are any: each connection gets everything it waits for in one write,
// which never blocks.
type writeScheduler struct {
	hub *Hub

	mu      sync.Mutex
	pending []*conn
	workers int
}

// add lets connections be served. The caller has set due on each.
func (s *writeScheduler) add(conns ...*conn) {
	if len(conns) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, conns...)
	for s.workers < runtime.GOMAXPROCS(0) && s.workers*blockSize < len(s.pending) {
		s.workers++
		s.hub.wg.Go(s.work)
	}
}

// saturated reports whether the workers have more to do than takes them about as
// long as the next pass.
func (s *writeScheduler) saturated() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pending) > 32*blockSize
}

// take moves the next connections into a block. When there are none, the
// worker has ended.
func (s *writeScheduler) take(block []*conn) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.pending), cap(block))
	block = append(block[:0], s.pending[:n]...)
	clear(s.pending[:n])
	s.pending = s.pending[n:]
	if n == 0 {
		s.pending = nil // its array is as long as the longest queue there was
		s.workers--
	}
	return block
}

var workspaces = sync.Pool{New: func() any { return new(workspace) }}

// workspace is where a worker puts frames together.
type workspace struct {
	frame     []byte
	block     [blockSize]*conn
	published int64
}

func (s *writeScheduler) work() {
	space, _ := workspaces.Get().(*workspace)
	defer workspaces.Put(space)
	for {
		block := s.take(space.block[:0])
		if len(block) == 0 {
			return
		}
		again := block[:0]
		for _, c := range block {
			if c.send(space) {
				again = append(again, c)
			}
		}
		s.add(again...)
		s.hub.publications.Add(space.published)
		space.published = 0
	}
}

// send writes what waits for the client, as much as a frame may hold. It
// returns true when there is more.
func (c *conn) send(space *workspace) bool {
	c.mu.Lock()
	frame, published := c.next(append(space.frame[:0], headerRoom...))
	c.mu.Unlock()
	space.published += published
	space.frame = frame
	busy := false
	if len(frame) > len(headerRoom) {
		var err error
		if busy, err = c.socket.send(c.format.seal(frame)); err != nil {
			c.hub.opts.Log.Debug("write to a live connection", "error", err)
			c.hangUp()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// What does not fit into the socket is not put together either: when there
	// is room again, the newest state is sent.
	if published > 0 && c.pongBy.IsZero() {
		c.probe()
	}
	c.stalled = busy && c.socket.busy()
	c.due = c.waits() && !c.stalled && !c.dead
	switch {
	case c.due:
		return true
	case c.bye != nil && !c.parting && !c.waits() && !c.dead:
		c.parting = true
		c.hub.wg.Go(c.part)
	}
	return false
}

// resume sends what has come to wait while the socket was full.
func (c *conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalled = false
	if c.waits() || c.bye != nil {
		c.wake()
	}
}

// part says goodbye and waits a little for the client to do so too.
func (c *conn) part() {
	if err := c.ws.Close(c.bye.code, c.bye.reason); err != nil {
		c.hub.opts.Log.Debug("close a live connection", "error", err)
	}
	c.hangUp()
}
