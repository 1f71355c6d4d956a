package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisTimeout bounds every wait for a Redis server on a busy machine.
const redisTimeout = 30 * time.Second

// pollInterval is how often a wait looks again.
const pollInterval = 2 * time.Millisecond

// forget has a server keep its data in memory only.
var forget = []string{"--save", "", "--appendonly", "no"}

// RedisServer is a redis-server process that belongs to one test. It keeps its
// data in memory only. Its methods fail the test when they cannot do what they
// say, so they are for the test's own goroutine.
type RedisServer struct {
	// URL is the server's address, the same after every Start.
	URL string

	t       testing.TB
	program string
	args    []string // beyond those every server gets
	address string
	log     string
	process *process // nil while stopped
}

// process is one run of the program.
type process struct {
	pid    int
	kill   context.CancelFunc
	exited chan struct{} // closed when the process is gone
	err    error         // why it ended; to be read after exited
}

// Redis starts a Redis server for this test and stops it when the test ends.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	return startRedis(t, func(s *RedisServer) { s.args = forget })
}

// startRedis starts a server for this test. prepare is called before each
// attempt, when the server has its address.
func startRedis(t testing.TB, prepare func(*RedisServer)) *RedisServer {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("redis-server is not installed (%v): run `make test`, which installs it", err)
	}
	s := &RedisServer{t: t, program: program, log: filepath.Join(t.TempDir(), "redis.log")}
	t.Cleanup(s.Stop)
	// Somebody may take the port before the server does: then try another.
	for range 5 {
		s.address = freeAddress(t)
		s.URL = "redis://" + s.address + "/0"
		prepare(s)
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start redis-server: %v", err)
	return nil
}

// Start starts a stopped server, empty and on the same port, and returns when
// it answers.
func (s *RedisServer) Start() {
	s.t.Helper()
	if s.process != nil {
		s.t.Fatal("storetest: the Redis server is already started")
	}
	if err := s.start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
}

// Stop kills the server as a crash would, paused or not, and returns when it is
// gone. Its data is lost. Stopping a stopped server does nothing.
func (s *RedisServer) Stop() {
	if s.process == nil {
		return
	}
	s.process.kill()
	<-s.process.exited
	s.process = nil
}

// Pause freezes the server: its connections stay open and nothing is answered.
func (s *RedisServer) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(s.t.Context(), redisTimeout)
	defer cancel()
	// The signal is only on its way when the system call returns.
	if err := poll(ctx, func() error { return frozen(s.process.pid) }); err != nil {
		s.t.Fatalf("pause redis-server: %v", err)
	}
}

// Resume lets a paused server go on with what it has received meanwhile.
func (s *RedisServer) Resume() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

// FlushAll deletes everything the server holds.
func (s *RedisServer) FlushAll() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), redisTimeout)
	defer cancel()
	client := s.client()
	defer func() {
		if err := client.Close(); err != nil {
			s.t.Errorf("close the connection to Redis: %v", err)
		}
	}()
	if err := client.FlushAll(ctx).Err(); err != nil {
		s.t.Fatalf("flush Redis: %v", err)
	}
}

func (s *RedisServer) signal(signal syscall.Signal) {
	s.t.Helper()
	if s.process == nil {
		s.t.Fatal("storetest: the Redis server is stopped")
	}
	if err := syscall.Kill(s.process.pid, signal); err != nil {
		s.t.Fatalf("send %v to redis-server: %v", signal, err)
	}
}

// start runs the program at s.address and returns when it answers there.
func (s *RedisServer) start() error {
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	// The server outlives the test's context: code that is stopped during
	// cleanup may still need it.
	life, kill := context.WithCancel(context.WithoutCancel(s.t.Context()))
	cmd := exec.CommandContext(life, s.program, slices.Concat(s.args, []string{
		"--bind", host, "--port", port,
		"--dir", filepath.Dir(s.log), "--logfile", s.log,
	})...)
	p, err := spawn(cmd, kill)
	if err != nil {
		return err
	}
	s.process = p
	if err := s.awaitAnswer(); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// spawn starts a command that kill ends.
func spawn(cmd *exec.Cmd, kill context.CancelFunc) (*process, error) {
	endWithParent(cmd)
	started := make(chan error, 1)
	p := &process{kill: kill, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		// endWithParent binds the server to the thread that started it, so
		// keep that thread for as long as the server runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		kill()
		return nil, err
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// awaitAnswer returns when this very process answers at the address: a server
// that another test started there in the meantime does not count.
func (s *RedisServer) awaitAnswer() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), redisTimeout)
	defer cancel()
	mine := "process_id:" + strconv.Itoa(s.process.pid) + "\r\n"
	return poll(ctx, func() error {
		select {
		case <-s.process.exited:
			cancel()
			text, err := os.ReadFile(s.log)
			return fmt.Errorf("it ended: %w", errors.Join(s.process.err, err, errors.New(string(text))))
		default:
		}
		// Knock first: the client would log every refusal.
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
		client := s.client()
		info, err := client.Info(ctx, "server").Result()
		if err == nil && !strings.Contains(info, mine) {
			err = errors.New("another server answers on its port")
		}
		return errors.Join(err, client.Close())
	})
}

// client connects without the retries and pauses of a client for production.
func (s *RedisServer) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.address, MaxRetries: -1, DialerRetries: 1})
}

// poll asks again until the answer is nil or the context ends, and then returns
// the last answer.
func poll(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// freeAddress returns a loopback address on which no process listens, and which no one else gets
// while the test runs, also when its server is stopped for a while: the port lies
// below those the kernel gives to outgoing connections, and the same one of UDP
// is held as a sign to the tests of this and other packages.
func freeAddress(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000)))
		var sign net.PacketConn
		var listener net.Listener
		var config net.ListenConfig
		if sign, err = config.ListenPacket(t.Context(), "udp", address); err != nil {
			continue
		}
		if listener, err = config.Listen(t.Context(), "tcp", address); err != nil {
			err = errors.Join(err, sign.Close())
			continue
		}
		if err = listener.Close(); err == nil {
			t.Cleanup(func() { sign.Close() }) //nolint:errcheck // nothing was read or written
			return address
		}
		err = errors.Join(err, sign.Close())
	}
	t.Fatalf("find a free port: %v", err)
	return ""
}
