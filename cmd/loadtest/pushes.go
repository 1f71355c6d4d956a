package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newPushes() *cobra.Command {
	var (
		opts    loadtest.PushesOptions
		servers target
	)
	return scenario("pushes", "Receive pushes in place of FCM while a queue moves",
		`Pushes lets patients with phones wait, calls the first ones and answers the
server like Google's FCM. It measures pushes a second and the time from the last
move until every phone shows its position. It checks that no phone receives more
than one position a second or an older position after a newer one, and that every
called patient receives the call once.

Start the server with NOWSERVING_FCM_ENDPOINT=http://127.0.0.1:9099 (the address
of --listen), NOWSERVING_OTP_FIXED_CODE and NOWSERVING_RATE_LIMIT=1000000.`,
		func(flags *pflag.FlagSet) {
			flags.IntVar(&opts.Patients, "patients", 1000, "number of waiting patients, each with a phone")
			flags.IntVar(&opts.Moves, "moves", 100, "number of patients called")
			flags.Float64Var(&opts.Rate, "rate", 10, "patients called in a second")
			flags.StringVar(&opts.Listen, "listen", "127.0.0.1:9099", "address at which the server expects FCM")
			flags.DurationVar(&opts.Delay, "delay", 0, "time that FCM takes to answer")
			flags.StringVar(&opts.Code, "code", "", "the server's fixed one-time code")
			flags.DurationVar(&opts.Bound, "bound", 20*time.Second, "time after the last move within which every phone must show its position")
			servers.registerNodes(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress = progress
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			return loadtest.Pushes(ctx, opts)
		})
}
