package check

import (
	"time"

	"nowserving/loadtest/report"
)

// Status is the current state of a Checker.
type Status struct {
	Opened         int64           `json:"opened"`
	Connected      int64           `json:"now"`
	Reconnects     int64           `json:"reconnects"`
	Failed         int64           `json:"failed"`
	Refused        int64           `json:"refused"`
	Messages       int64           `json:"messages"`
	Frames         int64           `json:"frames"`
	Conveyed       int64           `json:"conveyed"` // position changes that clients know
	Wrong          int64           `json:"wrong"`
	Behind         int             `json:"behind"` // clients that do not show the newest state
	FirstPositions []FirstPosition `json:"places,omitempty"`
}

// Add adds the status of another part of the clients.
func (s *Status) Add(o Status) {
	s.Opened += o.Opened
	s.Connected += o.Connected
	s.Reconnects += o.Reconnects
	s.Failed += o.Failed
	s.Refused += o.Refused
	s.Messages += o.Messages
	s.Frames += o.Frames
	s.Conveyed += o.Conveyed
	s.Wrong += o.Wrong
	s.Behind += o.Behind
	s.FirstPositions = append(s.FirstPositions, o.FirstPositions...)
}

// Result is what a Checker has found.
type Result struct {
	Latency   report.Histogram `json:"latency"`
	Called    report.Histogram `json:"called"`
	Ages      report.Histogram `json:"ages"`
	Watched   time.Duration    `json:"watched"`
	Last      [][]int64        `json:"last"`
	Faults    report.Faults    `json:"faults"`
	Problems  []report.Problem `json:"problems"`
	Checked   int64            `json:"checked"`
	Snapshots int64            `json:"snapshots"`
	Conflated int64            `json:"conflated"`
	OldestMS  float64          `json:"oldestMs"`
}

// Status returns the current state and the first positions since the last call.
func (c *Checker) Status() Status {
	s := Status{Wrong: c.tally.Total.Load(), Behind: c.behind(), FirstPositions: c.firstPositions, Conveyed: c.conveyed}
	c.firstPositions = nil
	for i := range c.shards {
		live := &c.shards[i].stats
		s.Add(Status{
			Opened: live.Opened.Load(), Connected: live.Connected.Load(), Reconnects: live.Reconnects.Load(), Failed: live.Failed.Load(),
			Refused: live.Refused.Load(), Messages: live.Messages.Load(), Frames: live.Frames.Load(),
		})
	}
	return s
}

// Conclude checks what every client shows now, returns what was found and starts counting
// anew.
func (c *Checker) Conclude(at int64) *Result {
	c.finish(at)
	_, old := c.tally.Worst()
	o := &Result{
		Watched: c.watched, Last: c.lastShown, Faults: c.tally.Faults(), Problems: c.tally.Problems(),
		Checked: c.tally.Checked.Load(), Snapshots: c.tally.Snapshots.Load(), Conflated: c.tally.Conflated.Load(),
		OldestMS: report.Milliseconds(old),
	}
	o.Latency.Merge(&c.tally.Latency)
	o.Called.Merge(&c.tally.CallLatency)
	o.Ages.Merge(&c.ages)
	refused := c.Status().Refused
	o.Faults.RefusedClients, c.refused = refused-c.refused, refused
	c.tally, c.ages, c.watched = NewTally(), report.Histogram{}, 0
	return o
}

// Merge adds the result of another part of the clients.
func (o *Result) Merge(from *Result) {
	o.Latency.Merge(&from.Latency)
	o.Called.Merge(&from.Called)
	o.Ages.Merge(&from.Ages)
	o.Watched += from.Watched
	for i, last := range from.Last {
		if i == len(o.Last) {
			o.Last = append(o.Last, nil)
		}
		for k, at := range last {
			if k == len(o.Last[i]) {
				o.Last[i] = append(o.Last[i], 0)
			}
			o.Last[i][k] = max(o.Last[i][k], at)
		}
	}
	o.Faults.Add(from.Faults)
	o.Problems = append(o.Problems, from.Problems...)
	o.Checked += from.Checked
	o.Snapshots += from.Snapshots
	o.Conflated += from.Conflated
	o.OldestMS = max(o.OldestMS, from.OldestMS)
}
