package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newSlow() *cobra.Command {
	var (
		opts    loadtest.SlowOptions
		stalled string
		servers target
	)
	return scenario("slow", "Let some clients stop reading and measure the effect on the others",
		`Slow connects clients to one queue and calls its first patients: first all
clients read, then a share of them leaves the sockets unread. It compares the p99
of the reading clients in both phases and takes the median of several rounds. The
exit code is not zero if it grows more than 1.2 times. It reports whether the
server dropped the stalled clients, and checks that all of them show the correct
position once they read again.`,
		func(flags *pflag.FlagSet) {
			flags.IntVar(&opts.Clients, "clients", 1000, "number of clients")
			flags.StringVar(&stalled, "stalled", "5%", "share of the clients that stop reading, like 5% or 0.05")
			flags.Float64Var(&opts.Rate, "rate", 20, "patients called in a second")
			flags.DurationVar(&opts.Phase, "phase", 10*time.Second, "duration of the phase in which all clients read, and of the one in which some do not")
			flags.IntVar(&opts.Rounds, "rounds", 3, "number of rounds; the median counts")
			flags.DurationVar(&opts.Bound, "bound", loadtest.DefaultBound, "time after which an update is late")
			servers.register(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (_ *report.Report, err error) {
			opts.Progress, opts.Protocol = progress, servers.protocol
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			if opts.Stalled, err = parseShare(stalled); err != nil {
				return nil, fmt.Errorf("--stalled: %w", err)
			}
			return loadtest.Slow(ctx, opts)
		})
}

// parseShare parses a share in percent or as a fraction.
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
