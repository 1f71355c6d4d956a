package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newDay() *cobra.Command {
	var (
		options loadtest.DayOptions
		at      target
		to      output
		roll    rolling
	)
	cmd := &cobra.Command{
		Use:   "day",
		Short: "Play a made-up day of a clinic and check every position told",
		Long: `Day makes up a clinic's day and plays it through the public API: arrivals peak
in the morning and in the afternoon, half of the patients join by phone, some
step aside and come back, leave, do not come when called, or go on to another
service. Every patient holds a live connection, and every position it is told is
checked against the truth, which the load test computes by itself.

Patients sign in to join by phone: start the server with
NOWSERVING_OTP_FIXED_CODE and give the same --code. Without it the desk makes
every join. The server's rate limit must be out of the way:
NOWSERVING_RATE_LIMIT=1000000.

The server lets nobody be called again within a minute of real time. A day
played fast checks that such calls are refused; at --speed 1 to 3 they succeed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.needKey(); err != nil {
				return err
			}
			options.Nodes, options.Key, options.Protocol, options.RollingRestart = at.nodes, at.key, at.protocol, roll.options()
			return to.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Day(cmd.Context(), options)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Visits, "visits", 300, "how many patients come")
	flags.Uint64Var(&options.Seed, "seed", 7, "the same seed gives the same day")
	flags.Float64Var(&options.Speed, "speed", loadtest.DefaultDaySpeed, "how many times faster than a clinic's clock")
	flags.DurationVar(&options.Bound, "bound", loadtest.DefaultBound, "how long a client may stay behind the truth")
	flags.StringVar(&options.Code, "code", "", "the server's fixed one-time code, so that patients can join by phone")
	at.register(cmd)
	roll.register(flags)
	to.register(cmd)
	return cmd
}

const defaultRestartEvery = 10 * time.Second

// rolling holds the flags of scenarios during which nodes can be restarted.
type rolling struct {
	loadtest.RollingRestart
}

func (r *rolling) register(flags *pflag.FlagSet) {
	flags.StringVar(&r.Command, "restart", "", "shell command that restarts the node $NODE, number $INDEX from 0, and returns when it is ready; run for each --url in turn")
	flags.DurationVar(&r.Every, "restart-every", defaultRestartEvery, "time before the first restart and between any two")
	flags.IntVar(&r.Rounds, "restart-rounds", 1, "how often each node is restarted")
}

func (r *rolling) options() *loadtest.RollingRestart {
	if r.Command == "" {
		return nil
	}
	return &r.RollingRestart
}
