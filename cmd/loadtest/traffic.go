package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

// trafficFlags are the flags of every scenario that serves the heads of queues.
func trafficFlags(cmd *cobra.Command, t *loadtest.Traffic) {
	flags := cmd.Flags()
	flags.IntVar(&t.Patients, "patients", 1000, "how many wait")
	flags.IntVar(&t.Queues, "queues", 1, "in how many queues")
	flags.IntVar(&t.Watch, "watch", 1, "how many patients share a phone, spread over the queue")
	flags.Float64Var(&t.Rate, "rate", 0, "heads served in each queue and second; 0 is as fast as the server answers")
	flags.IntVar(&t.Doctors, "doctors", 1, "how many serve each queue side by side")
	flags.IntVar(&t.Burst, "burst", 0, "heads served at the same moment, the next when every client shows it")
	flags.DurationVar(&t.Duration, "duration", 30*time.Second, "how long to serve")
	flags.DurationVar(&t.Bound, "bound", loadtest.DefaultBound, "how long a client may stay behind the truth")
	processesFlag(cmd, &t.Processes)
}

func processesFlag(cmd *cobra.Command, processes *int) {
	cmd.Flags().IntVar(processes, "processes", 1, "how many processes hold the clients; 1 is this one")
}

func newQueue() *cobra.Command {
	var (
		options loadtest.QueueOptions
		target  target
		output  output
	)
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Let many patients wait with live positions and serve the heads",
		Long: `Queue lets patients join on running servers, connects each to its own live
position, serves the heads of the queues and measures deliveries, latency, the
age of what clients show and the server's cost. Every position is checked
against the truth. The server's rate limit must be out of the way:
NOWSERVING_RATE_LIMIT=1000000.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needKey(); err != nil {
				return err
			}
			options.Nodes, options.Key, options.Protocol = target.nodes, target.key, target.protocol
			return output.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Queue(cmd.Context(), options)
			})
		},
	}
	target.register(cmd)
	trafficFlags(cmd, &options.Traffic)
	cmd.Flags().BoolVar(&options.Refill, "refill", false, "let another patient join for each one served")
	output.register(cmd)
	return cmd
}

func newConnect() *cobra.Command {
	var (
		options loadtest.ConnectOptions
		target  target
		output  output
	)
	cmd := &cobra.Command{
		Use:   "connect",
		Short: "Connect many clients and measure what an idle one costs the server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needKey(); err != nil {
				return err
			}
			options.Nodes, options.Key, options.Protocol = target.nodes, target.key, target.protocol
			return output.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Connect(cmd.Context(), options)
			})
		},
	}
	target.register(cmd)
	cmd.Flags().IntVar(&options.Connections, "connections", 10_000, "how many, each with a subscription of its own")
	cmd.Flags().DurationVar(&options.Idle, "idle", 20*time.Second, "how long they do nothing")
	processesFlag(cmd, &options.Processes)
	output.register(cmd)
	return cmd
}

func newFloor() *cobra.Command {
	var (
		options loadtest.FloorOptions
		output  output
	)
	cmd := &cobra.Command{
		Use:   "floor",
		Short: "Measure what this machine needs to write the same positions to bare sockets",
		Long: `Floor needs no server: another process writes the bytes of positions to TCP
sockets and does nothing else. With the same flags as queue, its figures are
what queue's can be compared with.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return output.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Floor(cmd.Context(), options)
			})
		},
	}
	trafficFlags(cmd, &options.Traffic)
	cmd.Flags().StringVar(&options.Protocol, "protocol", "json", "live protocol: json or protobuf")
	cmd.Flags().IntVar(&options.Writers, "writers", 2, "how many goroutines write")
	output.register(cmd)
	return cmd
}

// newWorker holds clients for a scenario of another process, which starts it.
func newWorker() *cobra.Command {
	return &cobra.Command{
		Use:    loadtest.WorkerCommand,
		Short:  "Hold clients for another process",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return loadtest.Work(cmd.Context(), os.Stdin, os.Stdout)
		},
	}
}

func newCentrifugo() *cobra.Command {
	var (
		options loadtest.CentrifugoOptions
		output  output
	)
	cmd := &cobra.Command{
		Use:   "centrifugo",
		Short: "Send the same positions through a running Centrifugo 6",
		Long: `Centrifugo publishes, for each head served, the new position of each patient
who waits to a channel of its own, over the HTTP API of a Centrifugo in parallel
batches. With the same flags as queue, its figures are what queue's can be
compared with. The server's CPU time is read from /metrics (prometheus.enabled).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return output.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Centrifugo(cmd.Context(), options)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.URL, "url", "http://127.0.0.1:8000", "address of the Centrifugo")
	flags.StringVar(&options.APIKey, "api-key", "", "http_api.key of its configuration")
	flags.StringVar(&options.TokenSecret, "token-secret", "", "client.token.hmac_secret_key of its configuration")
	flags.StringVar(&options.ChannelPrefix, "channel-prefix", "booking_", "what the names of the channels begin with")
	flags.IntVar(&options.Batch, "batch", 1000, "publications in a request")
	flags.IntVar(&options.Publishers, "publishers", 4, "requests at once")
	flags.StringVar(&options.Protocol, "protocol", "json", "live protocol: json or protobuf")
	trafficFlags(cmd, &options.Traffic)
	output.register(cmd)
	return cmd
}

func newBench() *cobra.Command {
	var (
		options loadtest.BenchOptions
		target  target
		output  output
	)
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Compare servers with bare sockets, in turn and in one run",
		Long: `Bench plays the same traffic over bare sockets (see floor), through the servers
(see queue) and, with --centrifugo-url, through a Centrifugo, in turn and several
times, and prints medians and ratios: deliveries at saturation, CPU time, latency
when all keeps up, 20 heads served at once, and how old positions become when
four times as much is asked for as fits.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := target.needKey(); err != nil {
				return err
			}
			options.Nodes, options.Key, options.Protocol = target.nodes, target.key, target.protocol
			return output.run(cmd, func(progress func(report.Progress)) (*report.Report, error) {
				options.Progress = progress
				return loadtest.Bench(cmd.Context(), options)
			})
		},
	}
	target.register(cmd)
	flags := cmd.Flags()
	flags.IntSliceVar(&options.Connections, "connections", []int{1000, 10_000}, "how many clients to compare with, one after another")
	flags.IntVar(&options.Watch, "watch", 1, "how many patients share a phone")
	flags.IntVar(&options.Rounds, "rounds", 3, "how often everybody plays everything")
	flags.DurationVar(&options.Duration, "duration", 6*time.Second, "how long each plays each")
	flags.IntVar(&options.Writers, "writers", 2, "how many goroutines write to the bare sockets")
	flags.StringVar(&options.Centrifugo.URL, "centrifugo-url", "", "address of a Centrifugo to compare with")
	flags.StringVar(&options.Centrifugo.APIKey, "centrifugo-api-key", "", "http_api.key of its configuration")
	flags.StringVar(&options.Centrifugo.TokenSecret, "centrifugo-token-secret", "", "client.token.hmac_secret_key of its configuration")
	flags.StringVar(&options.Centrifugo.ChannelPrefix, "centrifugo-channel-prefix", "booking_", "what the names of its channels begin with")
	processesFlag(cmd, &options.Processes)
	output.register(cmd)
	return cmd
}
