package notify

import "sync"

// The channels things leave by, and what can become of one.
const (
	channelWebhook = "webhook"
	channelPush    = "push"
	channelMessage = "message"

	resultSent         = "sent"
	resultFailed       = "failed"  // given up
	resultRetried      = "retried" // an attempt failed; another follows
	resultDropped      = "dropped" // not of use any more, or nobody to send it to
	resultUnregistered = "unregistered"
	resultHeld         = "held" // the client has had it by its live connection
)

// Outcome is what became of deliveries on a channel.
type Outcome struct{ Channel, Result string }

// stats count outcomes since the start.
type stats struct {
	mu sync.Mutex
	n  map[Outcome]uint64
}

func (s *stats) count(channel, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[Outcome]uint64{}
	}
	s.n[Outcome{channel, result}]++
}
