package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"nowserving/loadtest"
)

// keyVariable is where the server and this command look for the first account key.
const keyVariable = "NOWSERVING_BOOTSTRAP_KEY"

func newReplay() *cobra.Command {
	var (
		options  loadtest.ReplayOptions
		traceAt  string
		jsonAt   string
		quiet    bool
		defaults = []string{"http://127.0.0.1:8080"}
	)
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Replay a day of recorded visits and check every position told",
		Long: `Replay plays recorded visits through the public API at a chosen speed. Every
patient holds a live connection; every position it is told is checked against
the truth, which the replay computes by itself. The exit code is not zero when
anything was wrong, missed, late, repeated or out of order.

Without --trace it plays a small synthetic day that comes with the program.
The server's rate limit must be out of the way: NOWSERVING_RATE_LIMIT=1000000.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if options.Key == "" {
				options.Key = os.Getenv(keyVariable)
			}
			if options.Key == "" {
				return fmt.Errorf("an account API key is needed: --key or %s", keyVariable)
			}
			var err error
			if options.Trace, err = openTrace(traceAt); err != nil {
				return err
			}
			if !quiet {
				bar := newBar(cmd.ErrOrStderr())
				options.Progress = bar.show
				defer bar.close()
			}
			report, runErr := loadtest.Replay(cmd.Context(), options)
			if report == nil {
				return runErr
			}
			if err := writeReport(cmd.OutOrStdout(), jsonAt, report); err != nil {
				return err
			}
			if runErr != nil {
				return runErr
			}
			if !report.OK {
				return errFound
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&traceAt, "trace", "", "CSV file with the columns visit,service,arrived_at,called_at,completed_at")
	flags.StringVar(&options.Day, "day", "", `day to play, like 2019-11-04, or "all" (default the first)`)
	flags.StringArrayVar(&options.Nodes, "url", defaults, "address of a node; repeat it for more")
	flags.StringVar(&options.Key, "key", "", "account API key (default $"+keyVariable+")")
	flags.Float64Var(&options.Speed, "speed", 600, "how many times faster than recorded")
	flags.StringVar(&options.Protocol, "protocol", "json", "live protocol: json or protobuf")
	flags.DurationVar(&options.Bound, "bound", loadtest.DefaultBound, "how long a client may stay behind the truth")
	flags.IntVar(&options.MaxResources, "max-resources", loadtest.DefaultMaxResources, "most resources to make for one service")
	flags.StringVar(&jsonAt, "json", "", `also write the report as JSON to this file ("-" prints only the JSON)`)
	flags.BoolVar(&quiet, "quiet", false, "no progress on the error stream")
	return cmd
}

func openTrace(path string) (*loadtest.Trace, error) {
	if path == "" {
		return loadtest.SmallTrace()
	}
	return loadtest.OpenTrace(path)
}

func writeReport(out io.Writer, jsonAt string, report *loadtest.Report) error {
	if jsonAt == "-" {
		return report.WriteJSON(out)
	}
	if err := report.WriteTable(out); err != nil {
		return err
	}
	if jsonAt == "" {
		return nil
	}
	f, err := os.Create(jsonAt)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	err = report.WriteJSON(f)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		return fmt.Errorf("write report: %w", closeErr)
	}
	return err
}
