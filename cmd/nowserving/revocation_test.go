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
	"nowserving/cmd/nowserving/node/nodetest"
)

// revokeTime is how long an ended credential may have an effect on any node.
const revokeTime = 5 * time.Second

// liveClient is a live client of a node. codes gets the codes of its disconnections.
type liveClient struct {
	client *centrifuge.Client
	codes  chan uint32
}

// connect connects to a node with a credential.
func (p *process) connect(token string) *liveClient {
	p.T.Helper()
	l := &liveClient{codes: make(chan uint32, 100)}
	l.client = centrifuge.NewJsonClient("ws"+strings.TrimPrefix(p.URL, "http")+"/connection/websocket", centrifuge.Config{
		Token: token, MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond,
	})
	l.client.OnDisconnected(func(e centrifuge.DisconnectedEvent) { l.codes <- e.Code })
	l.client.OnConnecting(func(e centrifuge.ConnectingEvent) {
		if e.Code != 0 {
			l.codes <- e.Code
		}
	})
	p.T.Cleanup(l.client.Close)
	require.NoError(p.T, l.client.Connect())
	require.Eventually(p.T, func() bool { return l.client.State() == centrifuge.StateConnected }, nodetest.Patience, 10*time.Millisecond)
	return l
}

// ends requires that the client is disconnected with a code soon after a moment.
func (l *liveClient) ends(t testing.TB, code uint32, since time.Time, what string) {
	t.Helper()
	select {
	case got := <-l.codes:
		assert.Equal(t, code, got, what)
		t.Logf("%s: closed after %v", what, time.Since(since).Round(10*time.Millisecond))
		assert.Less(t, time.Since(since), revokeTime, what)
	case <-time.After(nodetest.Patience):
		require.FailNow(t, "still connected", what)
	}
}

// Credentials end on one node while the database, Redis or both hang for the other.
func TestEndedCredentialsOnANodeThatIsCutOffLoseTheirConnectionsSoon(t *testing.T) {
	t.Parallel()
	database, redisURL := storetest.Postgres(t), storetest.Redis(t).URL
	farDatabase, farRedis, nearRedis := startProxy(t, database, true), startProxy(t, redisURL, true), startProxy(t, redisURL, true)
	near := startProcess(t, serverEnviron(database, nearRedis.url)).NewClinic()
	far := startProcess(t, serverEnviron(farDatabase.url, farRedis.url))
	logout := func(session nodetest.Response) {
		near.Send(nodetest.Request{
			Method: http.MethodPost, Path: "/auth/logout", App: near.ID, Body: nodetest.Object{"refreshToken": session.Str("refreshToken")},
		}).OK()
	}
	// status is the status of an answer of the far node to a request with a credential.
	status := func(token string) int {
		return far.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: token}).Status
	}
	gone, stays := near.SignIn("+966500000061", false), near.SignIn("+966500000062", false)
	key := near.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "spare"}).OK()
	display := near.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK()
	ended := map[string]*liveClient{
		"a session": far.connect(gone.Str("accessToken")), "a key": far.connect(key.Str("result.key")), "a display": far.connect(display.Str("result.token")),
	}
	kept := far.connect(stays.Str("accessToken"))
	require.Equal(t, http.StatusOK, status(gone.Str("accessToken")))

	// Without the database, the far node learns of them over Redis.
	farDatabase.hang(true)
	cut := time.Now()
	logout(gone)
	near.Staff(http.MethodDelete, nodetest.KeysPath, nodetest.Object{"name": "spare"}).OK()
	near.Staff(http.MethodDelete, "/management/displays", nodetest.Object{"id": display.Str("result.id")}).OK()
	for what, l := range ended {
		l.ends(t, 3501, cut, what)
	}
	assert.Equal(t, http.StatusUnauthorized, status(gone.Str("accessToken")))
	require.Never(t, func() bool { return len(kept.codes) > 0 }, revokeTime, 50*time.Millisecond, "the near node reads the revocations for both")

	// Without both, it can check nothing.
	farRedis.hang(true)
	cut = time.Now()
	logout(stays)
	kept.ends(t, 3004, cut, "without the database and Redis")
	assert.Equal(t, http.StatusServiceUnavailable, status(stays.Str("accessToken")))
	farDatabase.hang(false)
	farRedis.hang(false)
	require.Eventually(t, func() bool { return status(stays.Str("accessToken")) == http.StatusUnauthorized }, nodetest.Patience, 50*time.Millisecond)
	select {
	case code := <-kept.codes:
		assert.EqualValues(t, 3500, code, "it reconnects and is refused")
	case <-time.After(nodetest.Patience):
		require.FailNow(t, "it does not reconnect")
	}

	// Without the database, when the node that ends them can't announce it.
	stays = near.SignIn("+966500000062", false)
	kept = far.connect(stays.Str("accessToken"))
	nearRedis.hang(true)
	farDatabase.hang(true)
	cut = time.Now()
	logout(stays)
	kept.ends(t, 3004, cut, "without announcements")
	nearRedis.hang(false)
	farDatabase.hang(false)
}
