package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newReplay() *cobra.Command {
	var (
		opts     loadtest.ReplayOptions
		trace    string
		servers  target
		restarts rolling
	)
	return scenario("replay", "Replay a day of recorded visits and check every position",
		`Replay runs recorded visits through the public API at a chosen speed. Every
patient has a live connection. The replay computes the truth by itself and checks
every position against it. The exit code is not zero if any update was wrong,
missed, late, repeated or out of order.

Without --trace it replays a small generated day that is part of the program.
Raise the server's rate limit: NOWSERVING_RATE_LIMIT=1000000.`,
		func(flags *pflag.FlagSet) {
			flags.StringVar(&trace, "trace", "", "CSV file with the columns visit,service,arrived_at,called_at,completed_at")
			flags.StringVar(&opts.Day, "day", "", `day to replay, like 2019-11-04, or "all" (default the first)`)
			flags.Float64Var(&opts.Speed, "speed", 600, "factor by which the replay is faster than recorded")
			flags.DurationVar(&opts.Bound, "bound", loadtest.DefaultBound, "time after which an update is late")
			flags.IntVar(&opts.MaxResources, "max-resources", loadtest.DefaultMaxResources, "largest number of resources for one service")
			servers.register(flags)
			restarts.register(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (_ *report.Report, err error) {
			opts.Progress, opts.Protocol, opts.RollingRestart = progress, servers.protocol, restarts.options()
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			if opts.Trace, err = openTrace(trace); err != nil {
				return nil, err
			}
			return loadtest.Replay(ctx, opts)
		})
}

func openTrace(path string) (*loadtest.Trace, error) {
	if path == "" {
		return loadtest.SmallTrace()
	}
	return loadtest.OpenTrace(path)
}
