//go:build linux && amd64

package main

import (
	"context"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
)

// startProcessOff starts a node on a machine whose clock is off by some minutes. The node
// is ready and reports that.
func startProcessOff(t *testing.T, environ []string, offset time.Duration) *process {
	t.Helper()
	p := newProcess(t, environ)
	p.launch = func(cmd *exec.Cmd) error { return startOff(cmd, offset) }
	p.run()
	require.Eventually(t, func() bool {
		status, body, err := p.get("/readyz")
		return err == nil && status == http.StatusOK && strings.Contains(body, "this machine's clock is "+offset.Abs().String())
	}, nodetest.Patience, 20*time.Millisecond)
	return p
}

// offset reads how far the clock of a node's machine is off, in seconds.
func (p *process) offset() float64 {
	p.T.Helper()
	return metric(p.Node, "nowserving_clock_offset_seconds")
}

// One node's machine is five minutes ahead and another's five minutes behind. Each accepts
// the credentials that the other issues, and everything happens on time, also after both
// clocks have jumped to the other side.
func TestNodesWithWrongClocksAcceptEachOthersCredentialsAndSendOnTime(t *testing.T) {
	t.Parallel()
	const off = 5 * time.Minute
	environ := append(environ(t, nodetest.Postgres), "NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true")
	a, b := startProcessOff(t, environ, off), startProcessOff(t, environ, -off)
	clinic, typeID, _ := a.NewQueue()
	var attempted sync.Map // webhook-ids
	receiver := nodetest.NewReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		if _, again := attempted.LoadOrStore(r.Header.Get("webhook-id"), true); !again {
			w.WriteHeader(http.StatusInternalServerError) // so that there is a retry
		}
	})
	// received returns when deliveries about a booking arrived.
	received := func(booking string) (at []time.Time) {
		for _, arrival := range receiver.Arrivals() {
			if nodetest.At(arrival.Body, "id") == booking {
				at = append(at, arrival.Time)
			}
		}
		return at
	}
	for _, trigger := range []string{"bookingUnassigned", "oneDayBeforeAppointment"} {
		clinic.Hook(trigger, receiver.URL, nil)
	}
	db, err := pgx.Connect(t.Context(), strings.TrimPrefix(environ[0], "DATABASE_URL="))
	require.NoError(t, err)
	defer db.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the end of a test

	appointments := 0
	check := func(phone string, node, otherNode *process) {
		one, other := clinic.Through(node.Node), clinic.Through(otherNode.Node)
		// A webhook, and its retry after 5 s less up to a tenth.
		began := time.Now()
		ticket := one.Join(typeID, nil)
		id := ticket.Str("id")

		// A reminder, moved to three seconds from now.
		appointment := one.Schedule(typeID, 800+appointments*100, nil).OK().Str("id")
		appointments++
		due := time.Now().Add(3 * time.Second)
		_, err := db.Exec(t.Context(), "UPDATE bookings SET reminder_at = $1 WHERE id = $2", due, appointment)
		require.NoError(t, err)

		// Codes, access tokens and refresh tokens.
		one.Send(one.Asking(phone, false)).OK()
		session := other.Send(other.Verifying(phone, nodetest.FixedCode, false)).OK()
		expires, err := time.Parse(time.RFC3339, session.Str("accessTokenExpiresAt"))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(15*time.Minute), expires, time.Minute)
		profile := func(c *nodetest.Clinic) {
			c.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile", Token: session.Str("accessToken")}).OK()
		}
		profile(one)
		session = one.Send(nodetest.Request{
			Method: http.MethodPost, Path: "/auth/token", App: one.ID, Body: nodetest.Object{"refreshToken": session.Str("refreshToken")},
		}).OK()
		profile(other)

		// A ticket, over the live connection.
		shown := watch(other.Node, ticket)
		require.Eventually(t, func() bool { return shown.shows() > 0 }, nodetest.Patience, 5*time.Millisecond)

		// Keys: one that lasts a minute works, and one that has ended does not.
		for _, life := range []time.Duration{time.Minute, 2 * time.Second} {
			key := one.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": phone + life.String(), "expiresAt": time.Now().Add(life)}).OK().Str("result.key")
			for _, c := range []*nodetest.Clinic{one, other} {
				works := func() bool {
					a, err := c.Try(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: key})
					return err == nil && a.Status == http.StatusOK
				}
				if life == time.Minute {
					require.True(t, works(), "a fresh key")
				} else {
					require.Eventually(t, func() bool { return !works() }, 10*time.Second, 20*time.Millisecond, "a key that has ended")
				}
			}
		}

		// The oldest of a patient's connections ends, on any node.
		var connections []*centrifuge.Client
		for i := range 6 {
			url := []*nodetest.Clinic{one, other}[i%2].URL
			c := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(url, "http")+"/connection/websocket", centrifuge.Config{Token: session.Str("accessToken")})
			t.Cleanup(c.Close)
			require.NoError(t, c.Connect())
			require.Eventually(t, func() bool { return c.State() == centrifuge.StateConnected }, nodetest.Patience, time.Millisecond)
			connections = append(connections, c)
		}
		require.Eventually(t, func() bool { return connections[0].State() == centrifuge.StateDisconnected }, nodetest.Patience, 5*time.Millisecond)
		for _, c := range connections[1:] {
			require.Equal(t, centrifuge.StateConnected, c.State())
			c.Close()
		}

		require.Eventually(t, func() bool { return len(received(id)) >= 2 }, nodetest.Patience, 10*time.Millisecond)
		at := received(id)
		t.Logf("the webhook came after %s, its retry %s later", at[0].Sub(began).Round(time.Millisecond), at[1].Sub(at[0]).Round(time.Millisecond))
		require.Eventually(t, func() bool { return len(received(appointment)) > 0 }, nodetest.Patience, 10*time.Millisecond)
		require.WithinRange(t, received(appointment)[0], due, due.Add(5*time.Second))
		require.Less(t, at[0].Sub(began), 5*time.Second)
		require.Greater(t, at[1].Sub(at[0]), 4*time.Second)
		require.Less(t, at[1].Sub(at[0]), 10*time.Second)
	}
	check("+966500000401", a, b)
	check("+966500000402", b, a)

	require.NoError(t, setClock(a.cmd.Process.Pid, -off))
	require.NoError(t, setClock(b.cmd.Process.Pid, off))
	require.InDelta(t, -off.Seconds(), a.offset(), 5)
	require.InDelta(t, off.Seconds(), b.offset(), 5)
	check("+966500000403", a, b)
	check("+966500000404", b, a)
}

// The service cannot correct a clock that is half an hour off. The node logs it, and is not
// ready until the clock is right.
func TestNodeWithAVeryWrongClockIsNotReady(t *testing.T) {
	t.Parallel()
	p := newProcess(t, environ(t, nodetest.Postgres))
	p.launch = func(cmd *exec.Cmd) error { return startOff(cmd, -30*time.Minute) }
	p.run()
	var body string
	require.Eventually(t, func() bool {
		var status int
		var err error
		status, body, err = p.get("/readyz")
		return err == nil && status == http.StatusServiceUnavailable && strings.Contains(body, "clock")
	}, nodetest.Patience, 20*time.Millisecond)
	require.Contains(t, body, "this machine's clock is 30m0s behind the database's")
	require.Contains(t, p.Log.String(), "this machine's clock is wrong")
	require.InDelta(t, -1800, p.offset(), 5)

	require.NoError(t, setClock(p.cmd.Process.Pid, 0))
	require.Eventually(t, func() bool {
		status, body, err := p.get("/readyz")
		return err == nil && status == http.StatusOK && strings.Contains(body, `"ready"`) &&
			strings.Contains(p.Log.String(), "this machine's clock is right again")
	}, nodetest.Patience, 20*time.Millisecond)
}
