package main

import (
	"github.com/spf13/cobra"

	"nowserving/loadtest"
)

func newTrace() *cobra.Command {
	var (
		visits int
		seed   uint64
	)
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Generate a day of visits and print it as CSV",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := loadtest.GenerateTrace(visits, seed)
			if err != nil {
				return err
			}
			return t.Write(cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&visits, "visits", 300, "number of visits")
	cmd.Flags().Uint64Var(&seed, "seed", 7, "seed of the day; the same seed gives the same day")
	return cmd
}
