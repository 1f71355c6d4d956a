package main

import (
	"fmt"
	"log/slog"
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

	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node/nodetest"
)

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelError) // lines of the log would break those of benchmarks
	nodetest.Main(m)
}

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

// environ returns the environment of a process on databases of its own.
func environ(t testing.TB, b nodetest.Backend) []string {
	t.Helper()
	if b == nodetest.Embedded {
		return []string{"NOWSERVING_DATA=" + t.TempDir()}
	}
	return serverEnviron(storetest.Postgres(t), storetest.Redis(t).URL)
}

// serverEnviron returns the environment of a process on a PostgreSQL and a Redis server.
func serverEnviron(databaseURL, redisURL string) []string {
	return []string{"DATABASE_URL=" + databaseURL, "REDIS_URL=" + redisURL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef"}
}

// process is a node in a process of its own, on a fixed port, so that it can be killed
// and started again. Its Log is what it has printed since it started.
type process struct {
	*nodetest.Node
	environ []string
	launch  func(cmd *exec.Cmd) error
	cmd     *exec.Cmd
}

// usedAddresses are those that tests of this run have been given.
var usedAddresses sync.Map

// freeAddress finds an unused port below those that the kernel gives to outgoing
// connections. A phone that dials a killed node could otherwise take the port that the
// node needs again.
func freeAddress(t testing.TB) string {
	t.Helper()
	for {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(10_000))
		if _, taken := usedAddresses.LoadOrStore(addr, true); taken {
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
	return &process{Node: nodetest.Remote(t, "http://"+addr), launch: (*exec.Cmd).Start, environ: append([]string{
		"NOWSERVING_ADDR=" + addr, "NOWSERVING_ENV=development", "NOWSERVING_OTP_FIXED_CODE=" + nodetest.FixedCode,
		"NOWSERVING_BOOTSTRAP_KEY=" + nodetest.BootstrapKey, "NOWSERVING_RATE_LIMIT=1000000",
	}, environ...)}
}

// run starts the process, which is killed when the test ends.
func (p *process) run() {
	p.T.Helper()
	binary, err := build()
	require.NoError(p.T, err)
	p.Log = &nodetest.LogBook{}
	p.cmd = exec.Command(binary, "serve") //nolint:noctx // killed by the test
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = p.environ, p.Log, p.Log
	require.NoError(p.T, p.launch(p.cmd))
	p.T.Cleanup(p.kill)
}

// start runs the process and waits until it is ready.
func (p *process) start() {
	p.T.Helper()
	p.run()
	require.Eventually(p.T, func() bool {
		status, body, err := p.get("/readyz")
		return err == nil && status == http.StatusOK && strings.Contains(body, `"ready"`)
	}, nodetest.Patience, 10*time.Millisecond)
}

// get makes a request that needs an account key, and returns the status and the body.
func (p *process) get(path string) (status int, body string, err error) {
	a, err := p.Try(nodetest.Request{Method: http.MethodGet, Path: path, Token: nodetest.BootstrapKey})
	return a.Status, string(a.Raw), err
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		p.T.Error(err)
	}
	if err := p.cmd.Wait(); err == nil {
		p.T.Error("the process ended well before it was killed")
	}
	p.Client.CloseIdleConnections()
}
