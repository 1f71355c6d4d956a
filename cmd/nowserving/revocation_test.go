package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/store/storetest"
)

// revokeTime is how long an ended credential may have an effect on any node.
const revokeTime = 5 * time.Second

// listener is a live client of a node. Its last code says why it was disconnected.
type listener struct {
	client *centrifuge.Client
	codes  chan uint32
}

// listen connects to a node with a credential.
func (p *process) listen(token string) *listener {
	p.t.Helper()
	l := &listener{codes: make(chan uint32, 100)}
	l.client = centrifuge.NewJsonClient("ws"+strings.TrimPrefix(p.url, "http")+"/connection/websocket", centrifuge.Config{
		Token: token, MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond,
	})
	l.client.OnDisconnected(func(e centrifuge.DisconnectedEvent) { l.codes <- e.Code })
	l.client.OnConnecting(func(e centrifuge.ConnectingEvent) {
		if e.Code != 0 {
			l.codes <- e.Code
		}
	})
	p.t.Cleanup(l.client.Close)
	require.NoError(p.t, l.client.Connect())
	l.connected(p.t)
	return l
}

func (l *listener) connected(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { return l.client.State() == centrifuge.StateConnected }, patience, 10*time.Millisecond)
}

// ends requires that the client is disconnected with a code soon after a moment.
func (l *listener) ends(t testing.TB, code uint32, since time.Time, what string) {
	t.Helper()
	select {
	case got := <-l.codes:
		assert.Equal(t, code, got, what)
		t.Logf("%s: closed after %v", what, time.Since(since).Round(10*time.Millisecond))
		assert.Less(t, time.Since(since), revokeTime, what)
	case <-time.After(patience):
		require.FailNow(t, "still connected", what)
	}
}

// Credentials end on one node while the other is cut off from the database, from
// Redis or from both.
func TestEndedCredentialsOnANodeThatIsCutOff(t *testing.T) {
	t.Parallel()
	database, redisURL := storetest.Postgres(t), storetest.Redis(t).URL
	farDatabase, farRedis, nearRedis := openWire(t, database, true), openWire(t, redisURL, true), openWire(t, redisURL, true)
	node := func(database, redisURL string) *process {
		return startProcess(t, []string{"DATABASE_URL=" + database, "REDIS_URL=" + redisURL, "NOWSERVING_SECRET_KEY=0123456789abcdef0123456789abcdef"})
	}
	near, far := node(database, nearRedis.url), node(farDatabase.url, farRedis.url)
	near.clinic()
	signIn := func(phone string) object {
		person := *near.client
		person.key = ""
		body := map[string]any{"method": "sms", "phoneNumber": phone, "isOrgMember": false}
		person.call("POST", "/auth/otp/request", body)
		body["code"] = demoCode
		return person.call("POST", "/auth/otp/verify", body)
	}
	logout := func(session object) {
		near.call("POST", "/auth/logout", map[string]any{"refreshToken": session.text("refreshToken")})
	}
	// status is what the far node answers to a request with a credential.
	status := func(token string) int {
		person := *far.client
		person.key, person.appID = token, near.appID
		status, _, err := person.try("GET", "/customer/bookings", nil)
		require.NoError(t, err)
		return status
	}
	gone, stays := signIn("+966500000061"), signIn("+966500000062")
	key := near.call("POST", "/management/apiKeys", map[string]any{"name": "spare"})
	display := near.call("POST", "/management/displays", map[string]any{"name": "Hall"})
	ended := map[string]*listener{
		"a session": far.listen(gone.text("accessToken")), "a key": far.listen(key.text("key")), "a display": far.listen(display.text("token")),
	}
	kept := far.listen(stays.text("accessToken"))
	require.Equal(t, http.StatusOK, status(gone.text("accessToken")))

	// Without the database, the far node hears of them over Redis.
	farDatabase.set(true)
	cut := time.Now()
	logout(gone)
	near.call("DELETE", "/management/apiKeys", map[string]any{"name": "spare"})
	near.call("DELETE", "/management/displays", map[string]any{"id": display.text("id")})
	for what, l := range ended {
		l.ends(t, 3501, cut, what)
	}
	assert.Equal(t, http.StatusUnauthorized, status(gone.text("accessToken")))
	require.Never(t, func() bool { return len(kept.codes) > 0 }, revokeTime, 50*time.Millisecond, "the near node looks for both")

	// Without both, it can check nothing.
	farRedis.set(true)
	cut = time.Now()
	logout(stays)
	kept.ends(t, 3004, cut, "without the database and Redis")
	assert.Equal(t, http.StatusServiceUnavailable, status(stays.text("accessToken")))
	farDatabase.set(false)
	farRedis.set(false)
	require.Eventually(t, func() bool { return status(stays.text("accessToken")) == http.StatusUnauthorized }, patience, 50*time.Millisecond)
	select {
	case code := <-kept.codes:
		assert.EqualValues(t, 3500, code, "it comes back and is refused")
	case <-time.After(patience):
		require.FailNow(t, "it does not come back")
	}

	// Without the database, when the node that ends them can't announce it.
	stays = signIn("+966500000062")
	kept = far.listen(stays.text("accessToken"))
	nearRedis.set(true)
	farDatabase.set(true)
	cut = time.Now()
	logout(stays)
	kept.ends(t, 3004, cut, "without announcements")
	nearRedis.set(false)
	farDatabase.set(false)
}
