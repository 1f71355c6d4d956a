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

// RequestStats counts requests by operation. It is safe for concurrent use.
type RequestStats struct {
	// Failed counts requests that were refused or not answered by any node, or whose response
	// was lost, even if a repeated attempt succeeded.
	Failed atomic.Int64
	lost   atomic.Int64 // included in Failed: sent, and no response arrived
	broken atomic.Int64 // included in Failed: answered with a server error
	Moved  atomic.Int64 // not in Failed: not started at one node and repeated at the next

	mu       sync.Mutex
	times    map[string]*report.Histogram
	problems []report.Problem
}

// NewRequestStats returns empty statistics.
func NewRequestStats() *RequestStats {
	return &RequestStats{times: map[string]*report.Histogram{}}
}

// Answered records the time of an answered request.
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

// unanswered counts an attempt that will be repeated. It is not a fault if a node accepts no
// connection or answers 502, 503 or 504. Anything else is.
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

// AddTo adds the counts, the problems and the time of each operation to a report.
func (s *RequestStats) AddTo(r *report.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.AddFigures("requests",
		report.Count("moved to another node", s.Moved.Load(), "a node accepted no connection or was unavailable"),
		report.Count("answers lost", s.lost.Load(), "the connection was lost before the response; each is a failed request"),
		report.Count("faults inside the server", s.broken.Load(), "each is a failed request"),
	)
	r.Problems = append(r.Problems, s.problems...)
	for _, operation := range slices.Sorted(maps.Keys(s.times)) {
		r.AddCurve("requests", "request "+operation, s.times[operation])
	}
}
