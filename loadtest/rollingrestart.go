package loadtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"nowserving/loadtest/client"
	"nowserving/loadtest/report"
)

// RollingRestart restarts one node after another while a scenario runs.
type RollingRestart struct {
	// Command restarts a node and returns when it is ready again. The shell runs
	// it with NODE set to the node's address and INDEX to its number, from 0.
	Command string
	// Every is the time before the first restart and between two restarts.
	Every time.Duration
	// Rounds is the number of restarts of each node. Default 1.
	Rounds int
}

// run restarts the nodes in turn until it is done or the returned function is called, which
// returns the error of a restart. A nil RollingRestart does nothing.
func (r *RollingRestart) run(parent context.Context, nodes []string, samples *report.Sampler) (stop func() error) {
	if r == nil {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancelCause(parent)
	var failed error
	var done sync.WaitGroup
	done.Go(func() {
		for turn := range len(nodes) * max(r.Rounds, 1) {
			i := turn % len(nodes)
			if client.Pause(ctx, r.Every) != nil {
				return
			}
			samples.Mark(fmt.Sprintf("restart %d", i+1))
			// A restart that has begun is completed.
			if err := runCommand(context.WithoutCancel(ctx), r.Command, "NODE="+nodes[i], fmt.Sprintf("INDEX=%d", i)); err != nil {
				failed = fmt.Errorf("restart of node %d: %w", i+1, err)
				return
			}
			samples.Mark(fmt.Sprintf("%d ready", i+1))
		}
	})
	return func() error {
		cancel(errors.New("the run is over"))
		done.Wait()
		return failed
	}
}

// commandTimeout bounds a command that restarts a server.
const commandTimeout = 2 * time.Minute

// runCommand runs a shell command that an option names.
func runCommand(ctx context.Context, command string, environment ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command) //nolint:gosec // the option is a command to run
	cmd.Env = append(os.Environ(), environment...)
	// Background processes of the command must not keep its output open.
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w: %.200s", command, err, out)
	}
	return nil
}
