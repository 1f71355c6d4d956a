package main

import (
	"fmt"
	"io"
	"os"

	"nowserving/loadtest/report"

	"github.com/spf13/cobra"
)

// keyVariable is where the server and this command look for the first account key.
const keyVariable = "NOWSERVING_BOOTSTRAP_KEY"

// target holds the flags of every scenario that runs against servers.
type target struct {
	nodes    []string
	key      string
	protocol string
}

func (t *target) register(cmd *cobra.Command) {
	t.registerNodes(cmd)
	cmd.Flags().StringVar(&t.protocol, "protocol", "json", "live protocol: json or protobuf")
}

// registerNodes leaves out what only live clients need.
func (t *target) registerNodes(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&t.nodes, "url", []string{"http://127.0.0.1:8080"}, "address of a node; repeat it for more")
	flags.StringVar(&t.key, "key", "", "account API key (default $"+keyVariable+")")
}

// needKey looks for the key in the environment too.
func (t *target) needKey() error {
	if t.key == "" {
		t.key = os.Getenv(keyVariable)
	}
	if t.key == "" {
		return fmt.Errorf("an account API key is needed: --key or %s", keyVariable)
	}
	return nil
}

// output holds the flags that say where the outcome of a scenario goes.
type output struct {
	jsonAt string
	htmlAt string
	quiet  bool
}

func (o *output) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.jsonAt, "json", "", `also write the report as JSON to this file ("-" prints only the JSON)`)
	flags.StringVar(&o.htmlAt, "html", "", "also write the report as a page with charts to this file")
	flags.BoolVar(&o.quiet, "quiet", false, "no progress on the error stream")
}

// run plays a scenario, shows its progress and writes its report. The error is
// errFound when the run went to its end and not all was well.
func (o *output) run(cmd *cobra.Command, play func(progress func(report.Progress)) (*report.Report, error)) error {
	var progress func(report.Progress)
	if !o.quiet {
		bar := newBar(cmd.ErrOrStderr())
		defer bar.close()
		progress = bar.show
	}
	result, runErr := play(progress)
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
