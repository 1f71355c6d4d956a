package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// PostgresServer is a PostgreSQL server process that belongs to one test, which
// may stop it. Tests that need no more than a database take Postgres.
type PostgresServer struct {
	// URL is the address of an empty database, the same after every Start.
	URL string

	t        testing.TB
	programs string // the folder of PostgreSQL's programs
	home     string
	address  string
	account  *syscall.SysProcAttr // whose processes they are; nil for our own
	process  *process             // nil while stopped
}

// OwnPostgres starts a PostgreSQL server for this test and stops it when the
// test ends.
func OwnPostgres(t testing.TB) *PostgresServer {
	t.Helper()
	s := &PostgresServer{t: t, programs: postgresPrograms(t)}
	home, err := os.MkdirTemp("", "postgres-") //nolint:usetesting // the server's account may not enter TempDir
	if err != nil {
		t.Fatal(err)
	}
	s.home = home
	t.Cleanup(func() {
		s.Stop()
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	password := rand.Text()
	if err := errors.Join(os.WriteFile(filepath.Join(home, "password"), []byte(password), 0o600), s.handOver()); err != nil {
		t.Fatalf("prepare PostgreSQL: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), adminTimeout)
	defer cancel()
	out, err := s.command(ctx, "initdb", "-D", filepath.Join(home, "data"), "-U", "postgres", "-A", "password",
		"--pwfile", filepath.Join(home, "password"), "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	for range 5 { // another process may take the port before the server does
		s.address = freeAddress(t)
		address := url.URL{
			Scheme: "postgres", User: url.UserPassword("postgres", password),
			Host: s.address, Path: "/postgres", RawQuery: "sslmode=disable",
		}
		s.URL = address.String()
		if err = s.start(); err == nil {
			return s
		}
	}
	t.Fatalf("start PostgreSQL: %v", err)
	return nil
}

// Start starts a stopped server with the data it had and returns when it
// answers.
func (s *PostgresServer) Start() {
	s.t.Helper()
	if err := s.start(); err != nil {
		s.t.Fatalf("start PostgreSQL: %v", err)
	}
}

// Stop ends the server at once, and every connection with it; what was
// committed is kept. Stopping a stopped server does nothing.
func (s *PostgresServer) Stop() {
	if s.process == nil {
		return
	}
	s.process.kill()
	<-s.process.exited
	s.process = nil
}

func (s *PostgresServer) start() error {
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return err
	}
	life, kill := context.WithCancel(context.WithoutCancel(s.t.Context()))
	cmd := s.command(life, "postgres", "-D", filepath.Join(s.home, "data"), "-p", port,
		"-c", "listen_addresses="+host, "-c", "unix_socket_directories=", "-c", "fsync=off")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) } // at once, but with its children
	p, err := spawn(cmd, kill)
	if err != nil {
		return err
	}
	s.process = p
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), adminTimeout)
	defer cancel()
	err = poll(ctx, func() error {
		select {
		case <-p.exited:
			cancel()
			return fmt.Errorf("it ended: %w", p.err)
		default:
		}
		conn, err := pgx.Connect(ctx, s.URL) // only this harness has the password
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	})
	if err != nil {
		s.Stop()
	}
	return err
}

// command runs one of PostgreSQL's programs, as the account its package made
// when we are root, which it refuses.
func (s *PostgresServer) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, program), args...)
	cmd.Dir = s.home
	if s.account != nil {
		account := *s.account
		cmd.SysProcAttr = &account
	}
	return cmd
}

// handOver gives the server's folder to the account that is to run it.
func (s *PostgresServer) handOver() error {
	if os.Getuid() != 0 {
		return nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return err
	}
	s.account = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return errors.Join(os.Chown(s.home, int(uid), int(gid)), os.Chown(filepath.Join(s.home, "password"), int(uid), int(gid)))
}

// postgresPrograms finds the newest PostgreSQL on this machine.
func postgresPrograms(t testing.TB) string {
	t.Helper()
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL is not installed (%v): run `make test`, which installs it", err)
	}
	return filepath.Dir(slices.Max(found)) // of one length: versions have two digits
}
