package main

import (
	"github.com/spf13/cobra"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newReplay() *cobra.Command {
	var (
		options loadtest.ReplayOptions
		traceAt string
		at      target
		to      output
		roll    rolling
	)
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Replay a day of recorded visits and check every position told",
		Long: `Replay plays recorded visits through the public API at a chosen speed. Every
patient holds a live connection; every position it is told is checked against
the truth, which the replay computes by itself. The exit code is not zero when
anything was wrong, missed, late, repeated or out of order.

Without --trace it plays a small synthetic day that comes with the program.
The server's rate limit must be out of the way: NOWSERVING_RATE_LIMIT=1000000.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.needKey(); err != nil {
				return err
			}
			var err error
			if options.Trace, err = openTrace(traceAt); err != nil {
				return err
			}
			options.Nodes, options.Key, options.Protocol, options.RollingRestart = at.nodes, at.key, at.protocol, roll.options()
			return to.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Replay(cmd.Context(), options)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&traceAt, "trace", "", "CSV file with the columns visit,service,arrived_at,called_at,completed_at")
	flags.StringVar(&options.Day, "day", "", `day to play, like 2019-11-04, or "all" (default the first)`)
	flags.Float64Var(&options.Speed, "speed", 600, "how many times faster than recorded")
	flags.DurationVar(&options.Bound, "bound", loadtest.DefaultBound, "how long a client may stay behind the truth")
	flags.IntVar(&options.MaxResources, "max-resources", loadtest.DefaultMaxResources, "most resources to make for one service")
	at.register(cmd)
	roll.register(flags)
	to.register(cmd)
	return cmd
}

func openTrace(path string) (*loadtest.Trace, error) {
	if path == "" {
		return loadtest.SmallTrace()
	}
	return loadtest.OpenTrace(path)
}
