package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newDay() *cobra.Command {
	var (
		opts     loadtest.DayOptions
		servers  target
		restarts rolling
	)
	return scenario("day", "Run a generated day of a clinic and check every position",
		`Day generates a clinic's day and runs it through the public API: arrivals peak
in the morning and in the afternoon, half of the patients join by phone, and some
are held and return, leave, do not come when called, or go on to another service.
Every patient has a live connection. The load test computes the truth by itself
and checks every position against it.

Patients sign in to join by phone: start the server with
NOWSERVING_OTP_FIXED_CODE and give the same --code. Without it, the staff makes
every join. Raise the server's rate limit: NOWSERVING_RATE_LIMIT=1000000.

The server refuses a second call within a minute of real time. At a high speed the
day checks that such calls are refused; at --speed 1 to 3 they succeed.`,
		func(flags *pflag.FlagSet) {
			flags.IntVar(&opts.Visits, "visits", 300, "number of patients that arrive")
			flags.Uint64Var(&opts.Seed, "seed", 7, "seed of the day; the same seed gives the same day")
			flags.Float64Var(&opts.Speed, "speed", loadtest.DefaultDaySpeed, "factor by which the day is faster than real time")
			flags.DurationVar(&opts.Bound, "bound", loadtest.DefaultBound, "time after which an update is late")
			flags.StringVar(&opts.Code, "code", "", "the server's fixed one-time code, so that patients can join by phone")
			servers.register(flags)
			restarts.register(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress, opts.Protocol, opts.RollingRestart = progress, servers.protocol, restarts.options()
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			return loadtest.Day(ctx, opts)
		})
}

// defaultRestartEvery is the time before the first restart and between two. 10 s.
const defaultRestartEvery = 10 * time.Second

// rolling holds the flags of scenarios during which nodes can be restarted.
type rolling struct {
	loadtest.RollingRestart
}

func (r *rolling) register(flags *pflag.FlagSet) {
	flags.StringVar(&r.Command, "restart", "", "shell command that restarts the node $NODE, number $INDEX from 0, and returns when it is ready; it runs for each --url in turn")
	flags.DurationVar(&r.Every, "restart-every", defaultRestartEvery, "time before the first restart and between two restarts")
	flags.IntVar(&r.Rounds, "restart-rounds", 1, "number of restarts of each node")
}

func (r *rolling) options() *loadtest.RollingRestart {
	if r.Command == "" {
		return nil
	}
	return &r.RollingRestart
}
