package main

import (
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store"
	"nowserving/booking/store/storetest"
	"nowserving/cmd/nowserving/node"
)

// pooler is a connection pooler that gives a client a session of PostgreSQL for one
// transaction, as PgBouncer does in its modes transaction and statement.
type pooler struct {
	t      *testing.T
	config *pgconn.Config // of the database
	inTurn bool           // gives the session that was idle longest, not the last used

	mu   sync.Mutex
	idle []*pgconn.HijackedConn
}

// startPooler starts a pooler and returns the URL of the database behind it.
func startPooler(t *testing.T, address string, inTurn bool) string {
	t.Helper()
	config, err := pgconn.ParseConfig(address)
	require.NoError(t, err)
	p := &pooler{t: t, config: config, inTurn: inTurn}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		assert.NoError(t, listener.Close())
		running.Wait()
		for _, session := range p.idle {
			assert.NoError(t, session.Conn.Close())
		}
	})
	return "postgres://" + config.User + "@" + listener.Addr().String() + "/" + config.Database + "?sslmode=disable"
}

func (p *pooler) lend() (*pgconn.HijackedConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		session := p.idle[last]
		if p.inTurn {
			session = p.idle[0]
			p.idle = p.idle[1:]
		} else {
			p.idle = p.idle[:last]
		}
		return session, nil
	}
	conn, err := pgconn.ConnectConfig(p.t.Context(), p.config)
	if err != nil {
		return nil, err
	}
	return conn.Hijack()
}

func (p *pooler) serve(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // the client may have closed it
	client := pgproto3.NewBackend(conn, conn)
	if _, err := client.ReceiveStartupMessage(); err != nil {
		return
	}
	client.Send(&pgproto3.AuthenticationOk{})
	client.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}})
	client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	var session *pgconn.HijackedConn
	for client.Flush() == nil {
		message, err := client.Receive()
		if _, ended := message.(*pgproto3.Terminate); err != nil || ended {
			break
		}
		if session == nil {
			if session, err = p.lend(); !assert.NoError(p.t, err) {
				return
			}
		}
		session.Frontend.Send(message)
		switch message.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
		default:
			continue
		}
		status, err := p.answer(session, client)
		if err != nil {
			break
		}
		if status == 'I' {
			p.mu.Lock()
			p.idle = append(p.idle, session)
			p.mu.Unlock()
			session = nil
		}
	}
	if session != nil { // it is in the middle of a transaction
		if err := session.Conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			p.t.Errorf("close a session: %v", err)
		}
	}
}

// answer passes on the messages of a session until it is ready for the next query.
func (p *pooler) answer(session *pgconn.HijackedConn, client *pgproto3.Backend) (status byte, err error) {
	if err := session.Frontend.Flush(); err != nil {
		return 0, err
	}
	for {
		message, err := session.Frontend.Receive()
		if err != nil {
			return 0, err
		}
		client.Send(message)
		if err := client.Flush(); err != nil {
			return 0, err
		}
		if ready, ok := message.(*pgproto3.ReadyForQuery); ok {
			return ready.TxStatus, nil
		}
	}
}

// With a pooler that shares sessions most requests would fail.
func TestAPoolerThatSharesSessionsIsRefusedByEveryCommand(t *testing.T) {
	t.Parallel()
	for name, inTurn := range map[string]bool{"the last used session": false, "sessions in turn": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := startPooler(t, storetest.Postgres(t), inTurn)
			c, err := node.ReadConfig(append(serverEnviron(address, storetest.Redis(t).URL), "NOWSERVING_ADDR=127.0.0.1:0"))
			require.NoError(t, err)
			for command, run := range map[string]func() error{
				"serve":      func() error { return serve(t.Context(), c) },
				"migrate up": func() error { return migrateUp(t.Context(), c) },
			} {
				err := run()
				require.ErrorIs(t, err, store.ErrPooler, command)
				require.ErrorContains(t, err, "pool_mode = session", command)
			}
		})
	}
}
