package loadtest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nowserving/loadtest/report"
)

// requestStats counts requests by what they do.
type requestStats struct {
	// failed counts requests that were refused, that no node answered, or whose
	// answer was lost on the way even if a repeated attempt was answered.
	failed atomic.Int64
	lost   atomic.Int64 // among the failed: sent, and the answer never came
	broken atomic.Int64 // among the failed: answered by a fault inside the server
	moved  atomic.Int64 // not failed: never begun at one node and repeated at the next

	mu       sync.Mutex
	times    map[string]*report.Histogram
	problems []report.Problem
}

func newRequestStats() *requestStats {
	return &requestStats{times: map[string]*report.Histogram{}}
}

func (s *requestStats) answered(operation string, took time.Duration) {
	s.mu.Lock()
	h := s.times[operation]
	if h == nil {
		h = new(report.Histogram)
		s.times[operation] = h
	}
	s.mu.Unlock()
	h.Add(took)
}

// unanswered counts an attempt that will be repeated. A node that takes no
// connection, or says with a 502, 503 or 504 that it can't work now, is passed
// over; anything else should not happen to a client.
func (s *requestStats) unanswered(operation, node string, status int, sent bool, err error) {
	switch {
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout, status == 0 && !sent:
		s.moved.Add(1)
		return
	case status == 0:
		s.lost.Add(1)
	default:
		s.broken.Add(1)
	}
	s.failed.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < report.MaxProblems {
		s.problems = append(s.problems, report.Problem{Kind: "failed request", Detail: fmt.Sprintf("%s at %s: %v", operation, node, err)})
	}
}

// fill adds the time each kind of request took to a report.
func (s *requestStats) fill(r *report.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.AddFigures("requests",
		report.Count("moved to another node", s.moved.Load(), "one took no connection, or said it can't work now"),
		report.Count("answers lost", s.lost.Load(), "sent, and cut off before the answer; each is a failed request"),
		report.Count("faults inside the server", s.broken.Load(), "each is a failed request"),
	)
	r.Problems = append(r.Problems, s.problems...)
	for _, operation := range slices.Sorted(maps.Keys(s.times)) {
		r.AddCurve("requests", "request "+operation, s.times[operation])
	}
}
