package outbox

import (
	"maps"
	"sync"
)

// The channels of deliveries, and their results.
const (
	ChannelWebhook = "webhook"
	ChannelPush    = "push"
	ChannelMessage = "message"

	ResultSent         = "sent"
	ResultFailed       = "failed"       // given up
	ResultRetried      = "retried"      // an attempt failed; another follows
	ResultDropped      = "dropped"      // no longer of use, or without a recipient
	ResultUnregistered = "unregistered" // the phone is gone; its device was deleted
	ResultHeld         = "held"         // the client has had it by its live connection
)

// Outcome is a channel and a result of deliveries.
type Outcome struct{ Channel, Result string }

// outcomes are all that can happen, so that each is shown before it does.
var outcomes = []Outcome{
	{ChannelWebhook, ResultSent}, {ChannelWebhook, ResultFailed}, {ChannelWebhook, ResultRetried}, {ChannelWebhook, ResultDropped},
	{ChannelPush, ResultSent}, {ChannelPush, ResultFailed}, {ChannelPush, ResultRetried}, {ChannelPush, ResultDropped},
	{ChannelPush, ResultUnregistered}, {ChannelPush, ResultHeld},
	{ChannelMessage, ResultSent}, {ChannelMessage, ResultFailed}, {ChannelMessage, ResultRetried}, {ChannelMessage, ResultDropped},
}

// Stats are what a node has done since its start.
type Stats struct {
	Outcomes map[Outcome]uint64
	// Sweeps counts the sweeps of an organization's positions, and PositionsTold the
	// new positions sent to patients.
	Sweeps, PositionsTold uint64
}

// Counter counts the deliveries of a node.
type Counter struct {
	mu  sync.Mutex
	now Stats
}

// Count adds one to the deliveries of channel that ended in result.
func (s *Counter) Count(channel, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Outcomes == nil {
		s.now.Outcomes = map[Outcome]uint64{}
	}
	s.now.Outcomes[Outcome{channel, result}]++
}

// Swept counts a sweep of an organization that sent so many new positions.
func (s *Counter) Swept(told int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Sweeps++
	s.now.PositionsTold += uint64(told)
}

// Snapshot returns the counts so far. Every possible outcome is in it.
func (s *Counter) Snapshot() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now
	now.Outcomes = make(map[Outcome]uint64, len(outcomes))
	for _, o := range outcomes {
		now.Outcomes[o] = 0
	}
	maps.Copy(now.Outcomes, s.now.Outcomes)
	return now
}
