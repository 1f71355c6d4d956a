package notify

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// The channels things leave by, and what can become of one.
const (
	channelWebhook = "webhook"
	channelPush    = "push"
	channelMessage = "message"

	resultSent         = "sent"
	resultFailed       = "failed"       // given up
	resultRetried      = "retried"      // an attempt failed; another follows
	resultDropped      = "dropped"      // no longer of use, or without a recipient
	resultUnregistered = "unregistered" // the phone is gone; its device was deleted
	resultHeld         = "held"         // the client has had it by its live connection
)

// Outcome is what became of deliveries on a channel.
type Outcome struct{ Channel, Result string }

// outcomes are all that can happen, so that each is shown before it does.
var outcomes = []Outcome{
	{channelWebhook, resultSent}, {channelWebhook, resultFailed}, {channelWebhook, resultRetried}, {channelWebhook, resultDropped},
	{channelPush, resultSent}, {channelPush, resultFailed}, {channelPush, resultRetried}, {channelPush, resultDropped},
	{channelPush, resultUnregistered}, {channelPush, resultHeld},
	{channelMessage, resultSent}, {channelMessage, resultFailed}, {channelMessage, resultRetried}, {channelMessage, resultDropped},
}

// Stats are what a node has done since its start.
type Stats struct {
	Outcomes map[Outcome]uint64
	// Sweeps is how often the places of an organization were looked through, and
	// PositionsTold how many patients were told a new one.
	Sweeps, PositionsTold uint64
}

// stats count what a node does.
type stats struct {
	mu  sync.Mutex
	now Stats
}

func (s *stats) count(channel, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Outcomes == nil {
		s.now.Outcomes = map[Outcome]uint64{}
	}
	s.now.Outcomes[Outcome{channel, result}]++
}

// swept counts a sweep of an organization that told so many a new place.
func (s *stats) swept(told int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Sweeps++
	s.now.PositionsTold += uint64(told)
}

// Stats returns the counts so far. Every outcome that can happen is there.
func (s *Service) Stats() Stats {
	s.stats.mu.Lock()
	defer s.stats.mu.Unlock()
	now := s.stats.now
	now.Outcomes = make(map[Outcome]uint64, len(outcomes))
	for _, o := range outcomes {
		now.Outcomes[o] = 0
	}
	maps.Copy(now.Outcomes, s.stats.now.Outcomes)
	return now
}

// OldestDue returns for each queue of jobs how long ago the oldest job that is
// not done should have been, on all nodes; 0 when nothing is due. A job that
// waits for its next attempt is due at that attempt.
func (s *Service) OldestDue(ctx context.Context) (map[string]time.Duration, error) {
	now, err := s.store.Now(ctx)
	if err != nil {
		return nil, err
	}
	oldest := make(map[string]time.Duration, len(workersOf))
	for queue := range workersOf {
		oldest[queue] = 0
		for _, state := range []rivertype.JobState{
			rivertype.JobStateAvailable, rivertype.JobStateRunning, rivertype.JobStateRetryable, rivertype.JobStateScheduled,
		} {
			// The index of jobs to fetch has just these columns, in this order.
			var due []time.Time
			err := s.store.Read(ctx).Raw("SELECT scheduled_at FROM river_job WHERE state = ? AND queue = ? AND priority = ? ORDER BY scheduled_at LIMIT 1",
				state, queue, river.PriorityDefault).Scan(&due).Error
			if err != nil {
				return nil, fmt.Errorf("look for the oldest job: %w", err)
			}
			for _, at := range due {
				oldest[queue] = max(oldest[queue], now.Sub(at))
			}
		}
	}
	return oldest, nil
}
