package realtime

import "slices"

const (
	// maxPushed bounds the pending publications of a client, in bytes. Beyond it the
	// client is closed with 3008 and may reconnect.
	maxPushed = 64 << 10
	// maxReplied bounds the pending replies, in bytes. Beyond it no more commands are
	// handled.
	maxReplied = 64 << 10
	// maxJoined is about how long a frame of several messages becomes, in bytes.
	maxJoined = 64 << 10
	// maxUnsent bounds the pending messages of one queue or display. Beyond it they
	// are replaced by the newest state.
	maxUnsent = 64
)

// message is an encoded reply, without a subscription, or the data of a publication.
type message struct {
	to   *subscription
	data []byte
}

// cost is about how many bytes a publication takes in a frame.
func (m *message) cost() int { return len(m.data) + len(m.to.channel) + 40 }

// wake schedules the connection for writing if anything is pending. c.mu must be
// held.
func (c *conn) wake() {
	if c.claim() {
		c.hub.writers.add(c)
	}
}

// claim reports whether the caller has to add the connection to the write scheduler.
// c.mu must be held.
func (c *conn) claim() bool {
	if c.due || c.stalled || c.dead {
		return false
	}
	c.due = true
	return true
}

// waits reports whether anything is pending. c.mu must be held.
func (c *conn) waits() bool { return len(c.messages) > 0 || len(c.moved) > 0 }

// next appends pending messages to a frame that begins with headerRoom, and counts
// the publications in it. c.mu must be held.
func (c *conn) next(frame []byte) (_ []byte, published int64) {
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
			data = appendPosition(scratch[:0], s.id, s.position, s.minutes, c.ageOf(s))
			s.sent = s.position
		}
		s.position = 0
		if data != nil {
			published++
			frame = c.format.appendPush(frame, s.channel, data)
		}
	}
	c.moved = slices.Delete(c.moved, 0, m)
	return frame, published
}

// ageOf returns the age of a subscription's newest position, in milliseconds, or -1
// while it is live.
func (c *conn) ageOf(s *subscription) int64 {
	if s.asOf == 0 {
		return -1
	}
	return max(0, c.hub.opts.Now().UnixMilli()-s.asOf)
}

// reply queues the answer to a command. c.mu must be held.
func (c *conn) reply(data []byte) {
	if c.bye != nil || c.dead {
		return
	}
	c.messages = append(c.messages, message{data: data})
	c.replied += len(data)
	c.wake()
}

// await waits until there is room for another reply. c.mu must be held.
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

// drop discards the pending messages of a subscription, but not its newest state. It
// returns their number. c.mu must be held.
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

// tooSlow closes the connection with 3008 and discards what is pending. c.mu must be
// held.
func (c *conn) tooSlow() {
	for _, m := range c.messages {
		if m.to != nil {
			c.hub.dropped.Add(1)
		}
	}
	c.messages, c.moved, c.pushed, c.replied = nil, nil, 0, 0
	c.closeLocked(closeSlow)
}

// move queues a position for a subscription, in place of an unsent one, with the
// minutes of its type if they are known. asOf is when the position was right, or 0 if
// it is live. Position 0 removes an unsent one, because the booking no longer waits.
// It returns true if the caller has to add the connection to the write scheduler.
func (c *conn) move(s *subscription, position, minutes int, asOf int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.left || c.bye != nil || c.dead {
		return false
	}
	if position == 0 {
		s.position, s.sent = 0, 0
		return false
	}
	if s.position != 0 {
		c.hub.conflated.Add(1)
	}
	if s.asOf != 0 && asOf == 0 {
		s.sent = 0 // the same place, now for certain, is news
	}
	s.position, s.asOf = position, asOf
	if minutes > 0 && minutes != s.minutes {
		s.sent, s.minutes = 0, minutes // the same place is worth another wait
	}
	return c.list(s)
}

// worth sets the minutes of the type of a subscription's booking.
func (c *conn) worth(s *subscription, minutes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.minutes = minutes
}

// renew queues the newest state of a queue or display, in place of an unsent one.
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
	if c.list(s) {
		c.hub.writers.add(c)
	}
}

// list marks a subscription as having a newest state to send. It returns what claim
// does. c.mu must be held.
func (c *conn) list(s *subscription) bool {
	if !s.listed {
		s.listed = true
		c.moved = append(c.moved, s)
	}
	return c.claim()
}
