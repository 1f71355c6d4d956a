package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newHooks() *cobra.Command {
	var (
		opts    loadtest.HooksOptions
		servers target
	)
	return scenario("hooks", "Receive webhooks and measure and check their deliveries",
		`Hooks starts receivers of webhooks, lets patients join and leave, and measures
deliveries a second and the time from the commit of a change to the first
attempt. It checks both signatures, that no delivery is missing or has two ids,
and that the sequence of a booking's deliveries is the true order. Dead receivers
accept connections and never answer.

The receivers are on this machine: start the server with
NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true and NOWSERVING_RATE_LIMIT=1000000.`,
		func(flags *pflag.FlagSet) {
			flags.IntVar(&opts.Endpoints, "endpoints", 1, "number of receivers, each at its own address")
			flags.IntVar(&opts.Dead, "dead", 0, "number of receivers that never answer")
			flags.IntVar(&opts.Events, "events", 2000, "number of changes; each is delivered to every receiver of its organization, which has at most 50")
			flags.Float64Var(&opts.Rate, "rate", 0, "events a second; 0 is as fast as the servers answer")
			flags.DurationVar(&opts.Patience, "patience", 20*time.Second, "time without deliveries after which the rest counts as missed")
			flags.StringVar(&opts.Host, "host", "127.0.0.1", "address at which the servers reach the receivers")
			servers.registerNodes(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress = progress
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			return loadtest.Hooks(ctx, opts)
		})
}
