package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

func newStorm() *cobra.Command {
	var (
		storm       loadtest.StormOptions
		churn       time.Duration
		connections int
		at          target
		to          output
	)
	cmd := &cobra.Command{
		Use:   "storm",
		Short: "Cut many clients off at once and measure how they come back, or let many come and go",
		Long: `Storm connects clients, each to its own live position, cuts all of them off at
once and measures how long it takes until each has been shown its own correct
position again. The exit code is not zero when that takes more than 10 s, or when
anything shown was wrong. The clients come back as the published SDKs do.

By default the clients close their sockets. --pid sends SIGTERM to a server that
something else starts again; --restart runs a command that restarts it. Then the
10 s count from the first client that is served again.

With --churn, clients connect, watch for a moment and leave for that long, and the
server's goroutines and memory afterwards are compared with those before.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := at.needKey(); err != nil {
				return err
			}
			if churn > 0 && (storm.Restart != "" || storm.Pid != 0) {
				return errors.New("--churn restarts nothing")
			}
			return to.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				if churn > 0 {
					return loadtest.Churn(cmd.Context(), loadtest.ChurnOptions{
						Nodes: at.nodes, Key: at.key, Protocol: at.protocol, Progress: progress,
						Patients: storm.Clients, Connections: connections, Duration: churn,
					})
				}
				storm.Nodes, storm.Key, storm.Protocol, storm.Progress = at.nodes, at.key, at.protocol, progress
				return loadtest.Storm(cmd.Context(), storm)
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&storm.Clients, "clients", 10_000, "how many clients; with --churn, how many patients they watch in turn")
	flags.IntVar(&storm.Queues, "queues", 10, "in how many queues they wait")
	flags.StringVar(&storm.Restart, "restart", "", "shell command that restarts the server")
	flags.IntVar(&storm.Pid, "pid", 0, "process to end by SIGTERM")
	flags.DurationVar(&storm.BackoffMin, "backoff-min", loadtest.ShortestBackoff, "shortest wait before coming back")
	flags.DurationVar(&storm.BackoffMax, "backoff-max", loadtest.LongestBackoff, "longest wait; 0 brings all back at once")
	flags.DurationVar(&churn, "churn", 0, "let clients come and go for so long instead")
	flags.IntVar(&connections, "connections", 100_000, "how many come in all, with --churn")
	at.register(cmd)
	to.register(cmd)
	return cmd
}
