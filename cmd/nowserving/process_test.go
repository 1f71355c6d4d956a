package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// build compiles the binary once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "nowserving-test-")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "nowserving")
	out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

// process is a node in a process of its own, on a fixed port, so that it can
// be killed and started again.
type process struct {
	*client
	environ []string
	launch  func(cmd *exec.Cmd) error
	cmd     *exec.Cmd
	output  *output
}

// output is what a process prints, which may be read while it still prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// printed is what the process has printed since it started.
func (p *process) printed() string {
	p.output.mu.Lock()
	defer p.output.mu.Unlock()
	return p.output.text.String()
}

// given remembers the ports that tests of this run have got.
var given sync.Map

// freeAddress finds a port nobody listens on, below those that the kernel hands
// to outgoing connections: a phone that dials a killed node could otherwise
// take the very port that the node needs again.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(10_000))
		if _, taken := given.LoadOrStore(addr, true); taken {
			continue
		}
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
		if err != nil {
			require.NoError(t, t.Context().Err())
			continue
		}
		require.NoError(t, l.Close())
		return addr
	}
}

func startProcess(t testing.TB, environ []string) *process {
	t.Helper()
	p := newProcess(t, environ)
	p.start()
	return p
}

// newProcess makes a node that is not started.
func newProcess(t testing.TB, environ []string) *process {
	t.Helper()
	addr := freeAddress(t)
	return &process{
		client: newClient(t, "http://"+addr), environ: append(settings(environ), "NOWSERVING_ADDR="+addr), launch: (*exec.Cmd).Start,
	}
}

// run starts the process, which is killed when the test ends.
func (p *process) run() {
	p.t.Helper()
	binary, err := build()
	require.NoError(p.t, err)
	p.output = &output{}
	p.cmd = exec.Command(binary, "serve") //nolint:noctx // killed by the test
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.environ, p.output, p.output
	require.NoError(p.t, p.launch(p.cmd))
	p.t.Cleanup(p.kill)
}

// start runs the process and waits until it is ready.
func (p *process) start() {
	p.t.Helper()
	p.run()
	ready := func() bool {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/readyz", http.NoBody)
		if err != nil {
			return false
		}
		res, err := p.http.Do(req)
		if err != nil {
			return false
		}
		body, err := io.ReadAll(res.Body)
		return errors.Join(err, res.Body.Close()) == nil && strings.Contains(string(body), `"ready"`)
	}
	require.Eventually(p.t, ready, patience, 10*time.Millisecond)
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Error(err)
	}
	if err := p.cmd.Wait(); err == nil {
		p.t.Error("the process ended well before it was killed")
	}
	p.http.CloseIdleConnections()
}
