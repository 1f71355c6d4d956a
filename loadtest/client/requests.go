package client

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

// RequestStats counts requests by what they do.
type RequestStats struct {
	// Failed counts requests that were refused, that no node answered, or whose
	// answer was lost on the way even if a repeated attempt was answered.
	Failed atomic.Int64
	lost   atomic.Int64 // among the failed: sent, and the answer never came
	broken atomic.Int64 // among the failed: answered by a fault inside the server
	Moved  atomic.Int64 // not failed: never begun at one node and repeated at the next

	mu       sync.Mutex
	times    map[string]*report.Histogram
	problems []report.Problem
}

func NewRequestStats() *RequestStats {
	return &RequestStats{times: map[string]*report.Histogram{}}
}

func (s *RequestStats) Answered(operation string, took time.Duration) {
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
func (s *RequestStats) unanswered(operation, node string, status int, sent bool, err error) {
	switch {
	case status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout, status == 0 && !sent:
		s.Moved.Add(1)
		return
	case status == 0:
		s.lost.Add(1)
	default:
		s.broken.Add(1)
	}
	s.Failed.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < report.MaxProblems {
		s.problems = append(s.problems, report.Problem{Kind: "failed request", Detail: fmt.Sprintf("%s at %s: %v", operation, node, err)})
	}
}

// AddTo adds the time each kind of request took to a report.
func (s *RequestStats) AddTo(r *report.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.AddFigures("requests",
		report.Count("moved to another node", s.Moved.Load(), "one took no connection, or said it can't work now"),
		report.Count("answers lost", s.lost.Load(), "sent, and cut off before the answer; each is a failed request"),
		report.Count("faults inside the server", s.broken.Load(), "each is a failed request"),
	)
	r.Problems = append(r.Problems, s.problems...)
	for _, operation := range slices.Sorted(maps.Keys(s.times)) {
		r.AddCurve("requests", "request "+operation, s.times[operation])
	}
}
