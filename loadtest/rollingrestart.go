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
	// Every is the time from the start to the first restart, and from the end
	// of each to the beginning of the next.
	Every time.Duration
	// Rounds is how often each node is restarted; once if zero.
	Rounds int
}

// run restarts nodes until all have had their turn or the returned function is
// called, which tells what failed. A nil Roll restarts nothing.
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
			// A restart that has begun is brought to its end.
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

// runCommand runs a command of whoever started the test, in a shell.
func runCommand(ctx context.Context, command string, environment ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command) //nolint:gosec // to run it is what was asked for
	cmd.Env = append(os.Environ(), environment...)
	// What the command leaves running in the background keeps nothing open here.
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w: %.200s", command, err, out)
	}
	return nil
}
