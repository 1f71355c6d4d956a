package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newSlow() *cobra.Command {
	var (
		options loadtest.SlowOptions
		stalled string
		at      target
		to      output
	)
	cmd := &cobra.Command{
		Use:   "slow",
		Short: "Let some clients stop reading and measure what the others notice",
		Long: `Slow connects clients to one queue and serves its heads, first with everybody
reading, then with a share of the clients leaving their sockets unread. It compares
the p99 of those who read in both phases, in some rounds of which the middle counts
(the exit code is not zero when it grows more than 1.2 times), tells whether the server dropped those who did not, and
checks that all of them show the right place once they read again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.needKey(); err != nil {
				return err
			}
			var err error
			if options.Stalled, err = parseShare(stalled); err != nil {
				return fmt.Errorf("--stalled: %w", err)
			}
			options.Nodes, options.Key, options.Protocol = at.nodes, at.key, at.protocol
			return to.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Slow(cmd.Context(), options)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Clients, "clients", 1000, "how many clients watch")
	flags.StringVar(&stalled, "stalled", "5%", "how many of them stop reading, like 5% or 0.05")
	flags.Float64Var(&options.Rate, "rate", 20, "heads served in a second")
	flags.DurationVar(&options.Phase, "phase", 10*time.Second, "how long to serve with everybody reading, and as long with some who do not")
	flags.IntVar(&options.Rounds, "rounds", 3, "how often; the middle of them counts")
	flags.DurationVar(&options.Bound, "bound", loadtest.DefaultBound, "how long a client may stay behind the truth")
	at.register(cmd)
	to.register(cmd)
	return cmd
}

// parseShare reads a share, in percent or as a fraction.
func parseShare(text string) (float64, error) {
	digits, percent := strings.CutSuffix(text, "%")
	share, err := strconv.ParseFloat(digits, 64)
	if percent {
		share /= 100
	}
	if err != nil || !(share > 0 && share < 1) {
		return 0, fmt.Errorf("%q is not a share like 5%% or 0.05", text)
	}
	return share, nil
}
