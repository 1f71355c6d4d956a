package loadtest

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"nowserving/loadtest/report"
)

// DefaultDaySpeed is the default speed: twelve hours in two minutes.
const DefaultDaySpeed = 360

const dayScenario = "day"

// DayOptions are the options of Day.
type DayOptions struct {
	// Visits is the number of patients that arrive. Some go on to another service.
	Visits int
	// Seed selects the day. The same seed gives the same day.
	Seed uint64
	// Nodes, Key, Speed, Protocol, Bound and Progress are those of ReplayOptions.
	Nodes    []string
	Key      string
	Speed    float64
	Protocol string
	Bound    time.Duration
	Progress func(report.Progress)
	// Code is the server's fixed one-time code. With it, half of the patients sign in and join
	// by phone. Without it, the staff makes every join.
	Code string
	// RollingRestart, if set, restarts the nodes during the day.
	RollingRestart *RollingRestart

	recallPause time.Duration // the constant recallPause, except in tests
}

// Day runs a generated day: arrivals follow the hour, half of the patients join by phone, and
// some are held and return, leave, do not come when called, or go on to another service. What
// every client receives is checked as in Replay.
func Day(ctx context.Context, opts DayOptions) (*report.Report, error) {
	day, err := generateDay(opts.Visits, opts.Seed)
	if err != nil {
		return nil, err
	}
	trace := &Trace{Name: fmt.Sprintf("generated, %d visits, seed %d", opts.Visits, opts.Seed)}
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
	// A patient who goes on to another service may join it after midnight. It still belongs to
	// the day.
	r.days, r.total = r.days[:1], int64(len(day))
	r.plans = func(string) []visitPlan { return day }
	return r.run(ctx, dayScenario)
}

// fillDay adds the figures that a replay does not have.
func (r *replay) fillDay(result *report.Report) {
	again := fmt.Sprintf("called again %d times; %d more recalls were correctly refused as too soon", r.recalls.Load(), r.refusedRecalls.Load())
	result.AddFigures("visits",
		report.Count("joined by phone", r.joinedByPhone.Load(), "after signing in; the staff made the other joins"),
		report.Count("held", r.held.Load(), "until they returned or left"),
		report.Count("did not come", r.noShows.Load(), again),
		report.Count("transferred", r.transferred.Load(), "to another service: one visit ended, the next began"),
	)
}
