package main

import (
	"time"

	"github.com/spf13/cobra"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newHooks() *cobra.Command {
	var (
		options loadtest.HooksOptions
		at      target
		to      output
	)
	cmd := &cobra.Command{
		Use:   "hooks",
		Short: "Receive webhooks and measure how fast and how well they tell",
		Long: `Hooks opens receivers of webhooks, lets patients join and leave, and measures
deliveries a second and the time from the commit of a change to the first
attempt. It checks both signatures, that nothing is missing or told under two
ids, and that the sequence of a booking's deliveries is the true order. Dead
receivers take connections and never answer.

The receivers are on this machine: start the server with
NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true and NOWSERVING_RATE_LIMIT=1000000.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.needKey(); err != nil {
				return err
			}
			options.Nodes, options.Key = at.nodes, at.key
			return to.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Hooks(cmd.Context(), options)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Endpoints, "endpoints", 1, "how many receivers, each at an address of its own")
	flags.IntVar(&options.Dead, "dead", 0, "how many of them never answer")
	flags.IntVar(&options.Events, "events", 2000, "how many changes; each is told to every receiver of its organization, which has at most 50")
	flags.Float64Var(&options.Rate, "rate", 0, "events a second; 0 is as fast as the servers answer")
	flags.DurationVar(&options.Patience, "patience", 20*time.Second, "how long nothing may arrive before the rest counts as missed")
	flags.StringVar(&options.Host, "host", "127.0.0.1", "address at which the servers reach the receivers")
	at.registerNodes(cmd)
	to.register(cmd)
	return cmd
}
