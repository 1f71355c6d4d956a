package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest"
	"nowserving/loadtest/report"
)

// trafficFlags registers the flags of every scenario with queues.
func trafficFlags(flags *pflag.FlagSet, t *loadtest.Traffic) {
	flags.IntVar(&t.Patients, "patients", 1000, "number of waiting patients")
	flags.IntVar(&t.Queues, "queues", 1, "number of queues")
	flags.IntVar(&t.Watch, "watch", 1, "number of patients on each connection, spread over the queue")
	flags.Float64Var(&t.Rate, "rate", 0, "patients called in each queue per second; 0 is as fast as the server answers")
	flags.IntVar(&t.Doctors, "doctors", 1, "number of doctors that serve each queue at the same time")
	flags.IntVar(&t.Burst, "burst", 0, "patients called at the same moment; the next burst starts when every client is up to date")
	flags.DurationVar(&t.Duration, "duration", 30*time.Second, "duration of the traffic")
	flags.DurationVar(&t.Bound, "bound", loadtest.DefaultBound, "time after which an update is late")
	processesFlag(flags, &t.Processes)
}

func processesFlag(flags *pflag.FlagSet, processes *int) {
	flags.IntVar(processes, "processes", 1, "number of processes that hold the clients; 1 is this process")
}

func protocolFlag(flags *pflag.FlagSet, protocol *string) {
	flags.StringVar(protocol, "protocol", "json", "live protocol: json or protobuf")
}

func newQueue() *cobra.Command {
	var (
		opts    loadtest.QueueOptions
		servers target
	)
	return scenario("queue", "Call patients from queues and measure the live positions of the others",
		`Queue lets patients join on running servers, connects each to its own live
position, calls the first patients of the queues and measures deliveries, latency,
the age of what clients show and the server's cost. Every position is checked
against the truth. Raise the server's rate limit: NOWSERVING_RATE_LIMIT=1000000.`,
		func(flags *pflag.FlagSet) {
			trafficFlags(flags, &opts.Traffic)
			flags.BoolVar(&opts.Refill, "refill", false, "let another patient join for each one served")
			servers.register(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress, opts.Protocol = progress, servers.protocol
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			return loadtest.Queue(ctx, opts)
		})
}

func newConnect() *cobra.Command {
	var (
		opts    loadtest.ConnectOptions
		servers target
	)
	return scenario("connect", "Connect many clients and measure what an idle one costs the server", "",
		func(flags *pflag.FlagSet) {
			flags.IntVar(&opts.Connections, "connections", 10_000, "number of connections, each with its own subscription")
			flags.DurationVar(&opts.Idle, "idle", 20*time.Second, "time in which the clients are idle")
			processesFlag(flags, &opts.Processes)
			servers.register(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress, opts.Protocol = progress, servers.protocol
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			return loadtest.Connect(ctx, opts)
		})
}

func newFloor() *cobra.Command {
	var opts loadtest.FloorOptions
	return scenario("floor", "Measure what this machine needs to write the same positions to bare sockets",
		`Floor needs no server: another process writes the bytes of positions to TCP
sockets and does nothing else. With the same flags as queue, its figures can be
compared with those of queue.`,
		func(flags *pflag.FlagSet) {
			trafficFlags(flags, &opts.Traffic)
			protocolFlag(flags, &opts.Protocol)
			flags.IntVar(&opts.Writers, "writers", 2, "number of goroutines that write")
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress = progress
			return loadtest.Floor(ctx, opts)
		})
}

// newWorker returns the command with which a scenario starts this program to hold
// clients.
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
	var opts loadtest.CentrifugoOptions
	return scenario("centrifugo", "Send the same positions through a running Centrifugo 6",
		`Centrifugo publishes, for each patient called, the new position of each waiting
patient to a channel of its own, over the HTTP API of a Centrifugo in parallel
batches. With the same flags as queue, its figures can be compared with those of
queue. The server's CPU time is read from /metrics (prometheus.enabled).`,
		func(flags *pflag.FlagSet) {
			flags.StringVar(&opts.URL, "url", "http://127.0.0.1:8000", "address of the Centrifugo")
			flags.StringVar(&opts.APIKey, "api-key", "", "http_api.key of its configuration")
			flags.StringVar(&opts.TokenSecret, "token-secret", "", "client.token.hmac_secret_key of its configuration")
			flags.StringVar(&opts.ChannelPrefix, "channel-prefix", "booking_", "start of the channels' names")
			flags.IntVar(&opts.Batch, "batch", 1000, "number of publications in a request")
			flags.IntVar(&opts.Publishers, "publishers", 4, "number of concurrent requests")
			protocolFlag(flags, &opts.Protocol)
			trafficFlags(flags, &opts.Traffic)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress = progress
			return loadtest.Centrifugo(ctx, opts)
		})
}

func newBench() *cobra.Command {
	var (
		opts    loadtest.BenchOptions
		servers target
	)
	return scenario("bench", "Compare servers with bare sockets, in turn and in one run",
		`Bench runs the same traffic over bare sockets (see floor), through the servers
(see queue) and, with --centrifugo-url, through a Centrifugo, in turn and several
times, and prints medians and ratios: deliveries at saturation, CPU time, latency
without overload, 20 patients called at once, and the age of positions at four
times the capacity.`,
		func(flags *pflag.FlagSet) {
			flags.IntSliceVar(&opts.Connections, "connections", []int{1000, 10_000}, "numbers of clients to compare with, one after another")
			flags.IntVar(&opts.Watch, "watch", 1, "number of patients on each connection")
			flags.IntVar(&opts.Rounds, "rounds", 3, "number of rounds; each compares all once")
			flags.DurationVar(&opts.Duration, "duration", 6*time.Second, "duration of each measurement")
			flags.IntVar(&opts.Writers, "writers", 2, "number of goroutines that write to the bare sockets")
			flags.StringVar(&opts.Centrifugo.URL, "centrifugo-url", "", "address of a Centrifugo to compare with")
			flags.StringVar(&opts.Centrifugo.APIKey, "centrifugo-api-key", "", "http_api.key of its configuration")
			flags.StringVar(&opts.Centrifugo.TokenSecret, "centrifugo-token-secret", "", "client.token.hmac_secret_key of its configuration")
			flags.StringVar(&opts.Centrifugo.ChannelPrefix, "centrifugo-channel-prefix", "booking_", "start of its channels' names")
			processesFlag(flags, &opts.Processes)
			servers.register(flags)
		},
		func(ctx context.Context, progress func(report.Progress)) (*report.Report, error) {
			opts.Progress, opts.Protocol = progress, servers.protocol
			if err := servers.set(&opts.Nodes, &opts.Key); err != nil {
				return nil, err
			}
			return loadtest.Bench(ctx, opts)
		})
}
