package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newStorm() *cobra.Command {
	var (
		opts        loadtest.StormOptions
		churn       time.Duration
		connections int
		servers     target
	)
	return scenario("storm", "Disconnect many clients at once and measure how they reconnect, or let many connect and leave",
		`Storm connects clients, each to its own live position, disconnects all of them at
once and measures the time until each has received its correct position again. The
exit code is not zero if that takes more than 10 s or if any position was wrong.
The clients reconnect like the published SDKs.

By default the clients close their sockets. --pid sends SIGTERM to a server that
its supervisor starts again; --restart runs a command that restarts it. The 10 s
then count from the first client that has its position again.

With --churn, clients connect, watch for a moment and leave during that time, and
the server's goroutines and memory afterwards are compared with those before.`,
		func(flags *pflag.FlagSet) {
			flags.IntVar(&opts.Clients, "clients", 10_000, "number of clients; with --churn, number of bookings that they watch in turn")
			flags.IntVar(&opts.Queues, "queues", 10, "number of queues")
			flags.StringVar(&opts.Restart, "restart", "", "shell command that restarts the server")
			flags.IntVar(&opts.Pid, "pid", 0, "process that receives SIGTERM")
			flags.DurationVar(&opts.BackoffMin, "backoff-min", loadtest.ShortestBackoff, "shortest wait before reconnecting")
			flags.DurationVar(&opts.BackoffMax, "backoff-max", loadtest.LongestBackoff, "longest wait before reconnecting; with 0 all reconnect at once")
			flags.DurationVar(&churn, "churn", 0, "instead, let clients connect and leave for this time")
			flags.IntVar(&connections, "connections", 100_000, "number of connections in total, with --churn")
			servers.register(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress, opts.Protocol = progress, servers.protocol
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			if churn <= 0 {
				return loadtest.Storm(ctx, opts)
			}
			if opts.Restart != "" || opts.Pid != 0 {
				return nil, errors.New("--churn excludes --restart and --pid")
			}
			return loadtest.Churn(ctx, loadtest.ChurnOptions{
				Nodes: opts.Nodes, Key: opts.Key, Protocol: opts.Protocol, Progress: progress,
				Patients: opts.Clients, Connections: connections, Duration: churn,
			})
		})
}
