package loadtest

import (
	"time"

	"nowserving/loadtest/report"
)

// fleetStatus is where a fleet stands.
type fleetStatus struct {
	Opened     int64       `json:"opened"`
	Now        int64       `json:"now"`
	Reconnects int64       `json:"reconnects"`
	Failed     int64       `json:"failed"`
	Refused    int64       `json:"refused"`
	Messages   int64       `json:"messages"`
	Frames     int64       `json:"frames"`
	Conveyed   int64       `json:"conveyed"` // changes of a client's position that it knows of
	Wrong      int64       `json:"wrong"`
	Behind     int         `json:"behind"` // clients that do not show the newest state
	Places     []placeSeen `json:"places,omitempty"`
}

func (s *fleetStatus) add(o fleetStatus) {
	s.Opened += o.Opened
	s.Now += o.Now
	s.Reconnects += o.Reconnects
	s.Failed += o.Failed
	s.Refused += o.Refused
	s.Messages += o.Messages
	s.Frames += o.Frames
	s.Conveyed += o.Conveyed
	s.Wrong += o.Wrong
	s.Behind += o.Behind
	s.Places = append(s.Places, o.Places...)
}

// outcome is what a fleet has found.
type outcome struct {
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

func (f *fleet) status() fleetStatus {
	s := fleetStatus{Wrong: f.tally.total.Load(), Behind: f.behind(), Places: f.places, Conveyed: f.conveyed}
	f.places = nil
	for i := range f.shards {
		live := &f.shards[i].stats
		s.add(fleetStatus{
			Opened: live.Opened.Load(), Now: live.Connected.Load(), Reconnects: live.Reconnects.Load(), Failed: live.Failed.Load(),
			Refused: live.Refused.Load(), Messages: live.Messages.Load(), Frames: live.Frames.Load(),
		})
	}
	return s
}

// conclude closes the books and opens new ones.
func (f *fleet) conclude(at int64) *outcome {
	f.finish(at)
	_, old := f.tally.worst()
	o := &outcome{
		Watched: f.watched, Last: f.last, Faults: f.tally.faultCounts(), Problems: f.tally.allProblems(),
		Checked: f.tally.checked.Load(), Snapshots: f.tally.snapshots.Load(), Conflated: f.tally.conflated.Load(),
		OldestMS: report.Milliseconds(old),
	}
	o.Latency.Merge(&f.tally.latency)
	o.Called.Merge(&f.tally.callLatency)
	o.Ages.Merge(&f.ages)
	refused := f.status().Refused
	o.Faults.RefusedClients, f.refused = refused-f.refused, refused
	f.tally, f.ages, f.watched = newTally(), report.Histogram{}, 0
	return o
}

// merge adds what another part of the fleet has found.
func (o *outcome) merge(from *outcome) {
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
