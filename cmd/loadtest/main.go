// Command loadtest runs simulated patients on running servers and checks every update
// that they receive. It parses flags and prints; package loadtest does the work.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// errFound means that the run was completed and found faults, which the printed
// report describes.
var errFound = errors.New("faults found")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := newRoot().ExecuteContext(ctx)
	stop()
	if err != nil {
		if !errors.Is(err, errFound) {
			fmt.Fprintln(os.Stderr, "loadtest:", err)
		}
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "loadtest",
		Short:         "Simulate patients on running servers and check every update they receive",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newDay(), newReplay(), newStorm(), newSlow(), newQueue(), newConnect(), newFloor(), newCentrifugo(), newBench(), newHooks(), newPushes(), newWorker(), newTrace())
	return root
}
