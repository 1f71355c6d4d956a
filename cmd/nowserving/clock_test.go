//go:build linux && amd64

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
)

// startProcessOff starts a node on a machine whose clock is off by some minutes,
// which it says while it serves.
func startProcessOff(t *testing.T, environ []string, offset time.Duration) *process {
	t.Helper()
	p := newProcess(t, environ)
	p.launch = func(cmd *exec.Cmd) error { return startOff(cmd, offset) }
	p.run()
	require.Eventually(t, func() bool {
		status, body, err := p.try("GET", "/readyz", nil)
		return err == nil && status == http.StatusOK && strings.Contains(string(body), "this machine's clock is "+offset.Abs().String())
	}, patience, 20*time.Millisecond)
	return p
}

// offset asks a node how far its machine's clock is off, in seconds.
func (p *process) offset() float64 {
	p.t.Helper()
	status, body, err := p.try("GET", "/metrics", nil)
	require.NoError(p.t, err)
	require.Equal(p.t, http.StatusOK, status)
	_, rest, found := strings.Cut(string(body), "\nnowserving_clock_offset_seconds ")
	require.True(p.t, found)
	value, _, _ := strings.Cut(rest, "\n")
	var seconds float64
	require.NoError(p.t, json.Unmarshal([]byte(value), &seconds))
	return seconds
}

// arrivals are the moments when a receiver was told of each booking. It fails the
// first attempt for every booking, so that there is a retry.
type arrivals struct {
	mu sync.Mutex
	at map[string][]time.Time
}

// ServeHTTP implements http.Handler.
func (a *arrivals) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var payload struct{ ID string }
	if err := json.NewDecoder(r.Body).Decode(&payload); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at[payload.ID] = append(a.at[payload.ID], time.Now())
	if len(a.at[payload.ID]) == 1 {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func (a *arrivals) of(booking string) []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]time.Time(nil), a.at[booking]...)
}

// One node's machine is five minutes ahead and another's five minutes behind.
// What one gives out is good on the other, and everything happens on time; also
// after both clocks have jumped to the other side.
func TestNodesWithWrongClocksAgree(t *testing.T) {
	t.Parallel()
	const off = 5 * time.Minute
	environ := append(backends[1].settings(t), "NOWSERVING_WEBHOOK_ALLOW_PRIVATE=true")
	a, b := startProcessOff(t, environ, off), startProcessOff(t, environ, -off)
	typeID, _ := a.clinic()
	b.appID = a.appID
	told := &arrivals{at: map[string][]time.Time{}}
	server := httptest.NewServer(told)
	t.Cleanup(server.Close)
	for _, trigger := range []string{"bookingUnassigned", "oneDayBeforeAppointment"} {
		status, answer, err := a.try("POST", "/management/webhooks", map[string]any{"trigger": trigger, "url": server.URL})
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status, string(answer))
	}
	db, err := pgx.Connect(t.Context(), strings.TrimPrefix(environ[0], "DATABASE_URL="))
	require.NoError(t, err)
	defer db.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the end of a test

	appointments := 0
	check := func(phone string, one, other *process) {
		// A webhook, and its retry after 5 s less up to a tenth.
		began := time.Now()
		ticket := one.join(typeID)
		id := ticket.text("id")

		// A reminder, moved to three seconds from now.
		appointment := one.call("PUT", "/management/scheduling/new", map[string]any{
			"type": typeID, "date": time.Now().AddDate(0, 0, 3).Format(time.DateOnly), "time": 800 + appointments*100,
		}).text("id")
		appointments++
		due := time.Now().Add(3 * time.Second)
		_, err := db.Exec(t.Context(), "UPDATE bookings SET reminder_at = $1 WHERE id = $2", due, appointment)
		require.NoError(t, err)

		// Codes, access tokens and refresh tokens.
		patient, elsewhere := *one.client, *other.client
		patient.key, elsewhere.key = "", ""
		code := map[string]any{"method": "sms", "phoneNumber": phone, "isOrgMember": false}
		patient.call("POST", "/auth/otp/request", code)
		code["code"] = demoCode
		session := elsewhere.call("POST", "/auth/otp/verify", code)
		expires, err := time.Parse(time.RFC3339, session.text("accessTokenExpiresAt"))
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(15*time.Minute), expires, time.Minute)
		patient.key = session.text("accessToken")
		patient.call("GET", "/customer/profile", nil)
		session = patient.call("POST", "/auth/token", map[string]any{"refreshToken": session.text("refreshToken")})
		patient.key, elsewhere.key = session.text("accessToken"), session.text("accessToken")
		elsewhere.call("GET", "/customer/profile", nil)

		// A ticket, over the live connection.
		shown := other.watch(ticket)
		require.Eventually(t, func() bool { return shown.shows() > 0 }, patience, 5*time.Millisecond)

		// Keys: one that lasts a minute works, and one that has ended does not.
		for _, life := range []time.Duration{time.Minute, 2 * time.Second} {
			key := one.call("POST", "/management/apiKeys", map[string]any{"name": phone + life.String(), "expiresAt": time.Now().Add(life)}).text("key")
			for _, node := range []*process{one, other} {
				desk := *node.client
				desk.key = key
				works := func() bool {
					status, _, err := desk.try("GET", "/management/types", nil)
					return err == nil && status == http.StatusOK
				}
				if life == time.Minute {
					require.True(t, works(), "a fresh key")
				} else {
					require.Eventually(t, func() bool { return !works() }, 10*time.Second, 20*time.Millisecond, "a key that has ended")
				}
			}
		}

		// Of a patient's connections the oldest ends, on whichever node they are.
		var connections []*centrifuge.Client
		for i := range 6 {
			node := []*process{one, other}[i%2]
			c := centrifuge.NewJsonClient("ws"+strings.TrimPrefix(node.url, "http")+"/connection/websocket", centrifuge.Config{Token: patient.key})
			t.Cleanup(c.Close)
			require.NoError(t, c.Connect())
			require.Eventually(t, func() bool { return c.State() == centrifuge.StateConnected }, patience, time.Millisecond)
			connections = append(connections, c)
		}
		require.Eventually(t, func() bool { return connections[0].State() == centrifuge.StateDisconnected }, patience, 5*time.Millisecond)
		for _, c := range connections[1:] {
			require.Equal(t, centrifuge.StateConnected, c.State())
			c.Close()
		}

		require.Eventually(t, func() bool { return len(told.of(id)) >= 2 }, patience, 10*time.Millisecond)
		at := told.of(id)
		t.Logf("the webhook came after %s, its retry %s later", at[0].Sub(began).Round(time.Millisecond), at[1].Sub(at[0]).Round(time.Millisecond))
		reminded := func() []time.Time { return told.of(appointment) }
		require.Eventually(t, func() bool { return len(reminded()) > 0 }, patience, 10*time.Millisecond)
		require.WithinRange(t, reminded()[0], due, due.Add(5*time.Second))
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

// A machine whose clock is half an hour off is wrong in ways that the service
// can't make good: its node says so, and is not ready until the clock is right.
func TestNodeWithAVeryWrongClockIsNotReady(t *testing.T) {
	t.Parallel()
	p := newProcess(t, []string{
		"DATABASE_URL=" + storetest.Postgres(t), "REDIS_URL=" + storetest.Redis(t).URL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef",
	})
	p.launch = func(cmd *exec.Cmd) error { return startOff(cmd, -30*time.Minute) }
	p.run()
	var body []byte
	require.Eventually(t, func() bool {
		var status int
		var err error
		status, body, err = p.try("GET", "/readyz", nil)
		return err == nil && status == http.StatusServiceUnavailable && strings.Contains(string(body), "clock")
	}, patience, 20*time.Millisecond)
	require.Contains(t, string(body), "this machine's clock is 30m0s behind the database's")
	require.Contains(t, p.printed(), "this machine's clock is wrong")
	require.InDelta(t, -1800, p.offset(), 5)

	require.NoError(t, setClock(p.cmd.Process.Pid, 0))
	require.Eventually(t, func() bool {
		status, body, err := p.try("GET", "/readyz", nil)
		return err == nil && status == http.StatusOK && strings.Contains(string(body), `"ready"`) &&
			strings.Contains(p.printed(), "this machine's clock is right again")
	}, patience, 20*time.Millisecond)
}
