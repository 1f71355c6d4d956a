// Command loadtest plays simulated patients against running servers and checks
// that every one of them was told the truth. It parses flags and prints; the
// work is in package loadtest.
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

// errFound says that the run went to its end and found something wrong: the
// report has already said what.
var errFound = errors.New("the server did not keep its word")

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
		Short:         "Play patients against running servers and check what each was told",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(newDay(), newReplay(), newStorm(), newSlow(), newQueue(), newConnect(), newFloor(), newCentrifugo(), newBench(), newHooks(), newPushes(), newWorker(), newTrace())
	return root
}
