package realtime

import (
	"context"
	"sync"
)

const (
	// maxPushed bounds the publications that wait for one client, in bytes; a
	// client that lets so many pile up is told to come back.
	maxPushed = 64 << 10
	// maxReplied is how many bytes of replies may wait before no more commands
	// are handled.
	maxReplied = 64 << 10
	// maxJoined is about how long a frame of several messages may grow.
	maxJoined = 64 << 10
	// maxUnsent bounds the messages of one queue or display that wait; more are
	// given up for the newest state.
	maxUnsent = 64
)

// message is a reply (encoded, subscription nil) or the data of a publication.
type message struct {
	to   *subscription
	data []byte
}

// cost is about what a publication takes in a frame.
func (m *message) cost() int { return len(m.data) + len(m.to.channel) + 40 }

// frames are reused between connections.
var frames = sync.Pool{New: func() any { return new([]byte) }}

// wake sees to it that what waits is sent. The caller holds the lock.
func (c *conn) wake() {
	if !c.writing && !c.dead {
		c.writing = true
		c.hub.wg.Go(c.write)
	}
}

// write sends until nothing is left, and says goodbye when it is time.
func (c *conn) write() {
	frame, _ := frames.Get().(*[]byte)
	defer frames.Put(frame)
	for {
		var bye *farewell
		if *frame, bye = c.next((*frame)[:0]); len(*frame) == 0 && bye == nil {
			return
		}
		var err error
		if bye != nil {
			err = c.ws.Close(bye.code, bye.reason)
		} else {
			err = c.ws.Write(context.Background(), c.format.messageType(), *frame)
		}
		if err != nil {
			c.hub.o.Log.Debug("write to a live connection", "error", err)
		}
		if err != nil || bye != nil {
			c.hangUp()
			return
		}
	}
}

// next puts what waits into a frame. When nothing does, it ends the writing
// and returns the farewell, if it is time for one.
func (c *conn) next(frame []byte) ([]byte, *farewell) {
	c.mu.Lock()
	defer c.mu.Unlock()
	published := int64(0)
	n := 0
	for ; n < len(c.messages) && len(frame) < maxJoined; n++ {
		m := &c.messages[n]
		if m.to == nil {
			c.replied -= len(m.data)
			frame = c.format.appendMessage(frame, m.data)
			continue
		}
		c.pushed -= m.cost()
		m.to.unsent--
		published++
		frame = c.format.appendPush(frame, m.to.channel, m.data)
	}
	if n == len(c.messages) {
		c.messages = nil
	} else {
		c.messages = append([]message(nil), c.messages[n:]...)
	}
	if c.replied < maxReplied {
		c.room.Broadcast()
	}
	m := 0
	for ; len(c.messages) == 0 && m < len(c.moved) && len(frame) < maxJoined; m++ {
		s := c.moved[m]
		s.listed = false
		var data []byte
		var scratch [192]byte
		switch {
		case s.latest != nil:
			data, s.latest = s.latest, nil
		case s.position != 0 && s.position != s.sent:
			data = appendPosition(scratch[:0], s.id, s.position, s.minutes)
			s.sent = s.position
		}
		s.position = 0
		if data != nil {
			published++
			frame = c.format.appendPush(frame, s.channel, data)
		}
	}
	if c.moved = c.moved[m:]; len(c.moved) == 0 {
		c.moved = nil
	}
	c.hub.publications.Add(published)
	if len(frame) > 0 {
		return frame, nil
	}
	if c.bye == nil || c.dead {
		c.writing = false
		return nil, nil
	}
	return nil, c.bye // writing stays true: these are the last words
}

// reply queues the answer to a command. The caller holds the lock.
func (c *conn) reply(data []byte) {
	if c.bye != nil || c.dead {
		return
	}
	c.messages = append(c.messages, message{data: data})
	c.replied += len(data)
	c.wake()
}

// await waits until there is room for another reply. The caller holds the lock.
func (c *conn) await() bool {
	for c.replied >= maxReplied && c.bye == nil && !c.dead {
		c.room.Wait()
	}
	return c.bye == nil && !c.dead
}

// publish queues a message for a subscription.
func (c *conn) publish(s *subscription, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.left || c.bye != nil || c.dead {
		return
	}
	if s.unsent == maxUnsent && s.kind != channelBooking {
		c.hub.dropped.Add(int64(c.drop(s)) + 1)
		return
	}
	m := message{s, data}
	c.messages = append(c.messages, m)
	c.pushed += m.cost()
	s.unsent++
	if c.pushed > maxPushed {
		c.tooSlow()
	}
	c.wake()
}

// drop gives up the messages that wait for a subscription, though not its
// newest state. It returns how many they were. The caller holds the lock.
func (c *conn) drop(s *subscription) int {
	kept := c.messages[:0]
	for _, m := range c.messages {
		if m.to == s {
			c.pushed -= m.cost()
			continue
		}
		kept = append(kept, m)
	}
	dropped := len(c.messages) - len(kept)
	clear(c.messages[len(kept):])
	c.messages = kept
	s.unsent = 0
	return dropped
}

// tooSlow sends the client away: what waits for it is given up. The caller
// holds the lock.
func (c *conn) tooSlow() {
	for _, m := range c.messages {
		if m.to != nil {
			c.hub.dropped.Add(1)
		}
	}
	c.messages, c.moved, c.pushed, c.replied = nil, nil, 0, 0
	c.closeLocked(closeSlow)
}

// move queues a position for a subscription, in place of an unsent one, and what
// a place is worth now, if that is known. Position 0 takes an unsent one back:
// the booking does not wait any more.
func (c *conn) move(s *subscription, position, minutes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.left || c.bye != nil || c.dead {
		return
	}
	if position == 0 {
		s.position, s.sent = 0, 0
		return
	}
	if s.position != 0 {
		c.hub.conflated.Add(1)
	}
	s.position = position
	if minutes > 0 {
		s.minutes = minutes
	}
	c.list(s)
}

// worth sets what a place of a subscription's booking is worth.
func (c *conn) worth(s *subscription, minutes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.minutes = minutes
}

// renew queues the newest state of a queue or display, in place of an unsent
// one.
func (c *conn) renew(s *subscription, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.left || c.bye != nil || c.dead {
		return
	}
	if s.latest != nil {
		c.hub.conflated.Add(1)
	}
	s.latest = data
	c.list(s)
}

// list notes that a subscription has a newest state to send. The caller holds
// the lock.
func (c *conn) list(s *subscription) {
	if !s.listed {
		s.listed = true
		c.moved = append(c.moved, s)
	}
	c.wake()
}
