package main

import (
	"time"

	"github.com/spf13/cobra"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newPushes() *cobra.Command {
	var (
		options loadtest.PushesOptions
		at      target
		to      output
	)
	cmd := &cobra.Command{
		Use:   "pushes",
		Short: "Receive pushes in the place of FCM while a queue moves",
		Long: `Pushes lets patients with phones wait, serves the heads of their queue and
answers the server as Google's FCM does. It measures pushes a second and how long
it takes until every phone shows its place after the last move, and checks that
no phone got more than one place a second, that none was told an older place
after a newer one, and that whoever was called was told so once.

Start the server with NOWSERVING_FCM_ENDPOINT=http://127.0.0.1:9099 (the address
of --listen), NOWSERVING_OTP_FIXED_CODE and NOWSERVING_RATE_LIMIT=1000000.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.needKey(); err != nil {
				return err
			}
			options.Nodes, options.Key = at.nodes, at.key
			return to.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Pushes(cmd.Context(), options)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Patients, "patients", 1000, "how many wait, each with a phone")
	flags.IntVar(&options.Moves, "moves", 100, "how many heads are served")
	flags.Float64Var(&options.Rate, "rate", 10, "heads served a second")
	flags.StringVar(&options.Listen, "listen", "127.0.0.1:9099", "where the server expects FCM")
	flags.DurationVar(&options.Delay, "delay", 0, "how long FCM takes to answer a message")
	flags.StringVar(&options.Code, "code", "", "the server's fixed one-time code")
	flags.DurationVar(&options.Bound, "bound", 20*time.Second, "how long after the last move everybody must have been told")
	at.registerNodes(cmd)
	to.register(cmd)
	return cmd
}
