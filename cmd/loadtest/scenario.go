package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"nowserving/loadtest/report"
)

// scenario returns the command of a scenario. flags registers the scenario's flags;
// run runs it once they have been parsed.
func scenario(use, short, long string, flags func(*pflag.FlagSet), run func(context.Context, func(report.Progress)) (*report.Report, error)) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return out.run(cmd, run)
		},
	}
	flags(cmd.Flags())
	out.register(cmd.Flags())
	return cmd
}

// keyVariable is the environment variable of the first account key, for the server
// and for this command.
const keyVariable = "NOWSERVING_BOOTSTRAP_KEY"

// target holds the flags of every scenario that needs servers.
type target struct {
	nodes    []string
	key      string
	protocol string
}

func (t *target) register(flags *pflag.FlagSet) {
	t.registerNodes(flags)
	protocolFlag(flags, &t.protocol)
}

// registerNodes registers the flags of scenarios without live clients.
func (t *target) registerNodes(flags *pflag.FlagSet) {
	flags.StringArrayVar(&t.nodes, "url", []string{"http://127.0.0.1:8080"}, "address of a node; repeat it for more")
	flags.StringVar(&t.key, "key", "", "account API key (default $"+keyVariable+")")
}

// set sets the nodes and the key, which may come from the environment.
func (t *target) set(nodes *[]string, key *string) error {
	if t.key == "" {
		t.key = os.Getenv(keyVariable)
	}
	if t.key == "" {
		return fmt.Errorf("an account API key is required: --key or %s", keyVariable)
	}
	*nodes, *key = t.nodes, t.key
	return nil
}

// output holds the flags for the report and the progress of a scenario.
type output struct {
	jsonAt string
	htmlAt string
	quiet  bool
}

func (o *output) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.jsonAt, "json", "", `also write the report as JSON to this file ("-" prints only the JSON)`)
	flags.StringVar(&o.htmlAt, "html", "", "also write the report as a page with charts to this file")
	flags.BoolVar(&o.quiet, "quiet", false, "print no progress on the error stream")
}

// run runs a scenario, shows its progress and writes its report. It returns errFound
// if the scenario was completed and its report is not OK.
func (o *output) run(cmd *cobra.Command, run func(context.Context, func(report.Progress)) (*report.Report, error)) error {
	var progress func(report.Progress)
	if !o.quiet {
		bar := newBar(cmd.ErrOrStderr())
		defer bar.close()
		progress = bar.show
	}
	result, runErr := run(cmd.Context(), progress)
	if result == nil {
		return runErr
	}
	if err := o.write(cmd.OutOrStdout(), result); err != nil {
		return err
	}
	if runErr != nil {
		return runErr
	}
	if !result.OK {
		return errFound
	}
	return nil
}

func (o *output) write(out io.Writer, result *report.Report) error {
	if o.jsonAt == "-" {
		if err := result.WriteJSON(out); err != nil {
			return err
		}
	} else if err := result.WriteTable(out); err != nil {
		return err
	}
	if o.jsonAt != "" && o.jsonAt != "-" {
		if err := writeFile(o.jsonAt, result.WriteJSON); err != nil {
			return err
		}
	}
	if o.htmlAt != "" {
		return writeFile(o.htmlAt, result.WriteHTML)
	}
	return nil
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	err = write(f)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		return fmt.Errorf("write report: %w", closeErr)
	}
	return err
}
