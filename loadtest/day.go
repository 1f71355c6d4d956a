package loadtest

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"nowserving/loadtest/report"
)

// DefaultDaySpeed makes twelve hours of a clinic pass in two minutes.
const DefaultDaySpeed = 360

const dayScenario = "day"

// DayOptions says what day to make up and against which servers to play it.
type DayOptions struct {
	// Visits is how many patients come; some go on to another service.
	Visits int
	// Seed chooses the day: the same seed gives the same one.
	Seed uint64
	// Nodes, Key, Speed, Protocol, Bound and Progress are as for a replay.
	Nodes    []string
	Key      string
	Speed    float64
	Protocol string
	Bound    time.Duration
	Progress func(report.Progress)
	// Code is the server's fixed one-time code. With it, half of the patients
	// sign in and join by phone; without it, the desk makes every join.
	Code string
	// RollingRestart, if set, restarts the nodes while the day is played.
	RollingRestart *RollingRestart

	recallPause time.Duration // the constant, except in tests
}

// Day plays a made-up day: arrivals follow the hour, half of the patients join
// by phone, some step aside and come back, leave, do not come when called, or
// move on to another service. What every client is told is checked as in a
// replay.
func Day(ctx context.Context, opts DayOptions) (*report.Report, error) {
	day, err := generateDay(opts.Visits, opts.Seed)
	if err != nil {
		return nil, err
	}
	trace := &Trace{Name: fmt.Sprintf("made up, %d visits, seed %d", opts.Visits, opts.Seed)}
	for _, plan := range day {
		trace.Visits = append(trace.Visits, plan.Visit)
	}
	r, err := newReplay(ReplayOptions{
		Trace: trace, Day: "all", Nodes: opts.Nodes, Key: opts.Key, Speed: cmp.Or(opts.Speed, DefaultDaySpeed),
		Protocol: opts.Protocol, Bound: opts.Bound, Progress: opts.Progress, RollingRestart: opts.RollingRestart, code: opts.Code, recallPause: opts.recallPause,
	})
	if err != nil {
		return nil, err
	}
	defer r.close()
	// Who joins late and is moved on may do so after midnight; it is one day all the same.
	r.days, r.total = r.days[:1], int64(len(day))
	r.plans = func(string) []visitPlan { return day }
	return r.run(ctx, dayScenario)
}

// fillDay adds what a replay does not have.
func (r *replay) fillDay(result *report.Report) {
	again := fmt.Sprintf("called again %d times; %d calls more were refused, rightly, for being too soon", r.recalls.Load(), r.refusedRecalls.Load())
	result.AddFigures("visits",
		report.Count("joined by phone", r.joinedByPhone.Load(), "after signing in; the desk made every other join"),
		report.Count("stepped aside", r.held.Load(), "for a while, or until they left"),
		report.Count("did not come", r.noShows.Load(), again),
		report.Count("moved on", r.transferred.Load(), "to another service: one visit ended, the next began"),
	)
}
