package realtime_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
	"nowserving/realtime"
)

// A client that can't be authenticated comes back only where that can help. Every
// code of the catalogue is tried, so a new one is refused for good unless it is
// added here and in the code.
func TestOnlyPassingFailuresLetAClientTryAgain(t *testing.T) {
	again := map[models.Code]string{
		models.CodeInternal:        `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`,
		models.CodeUnavailable:     `{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}`,
		models.CodeTooManyRequests: `{"id":1,"error":{"code":111,"message":"too many requests","temporary":true}}`,
		models.CodeTokenExpired:    `{"id":1,"error":{"code":109,"message":"token expired"}}`,
	}
	w := small(t)
	id := w.join("r1")
	n := w.node(realtime.Options{})
	for _, failure := range models.Failures {
		c := dial(t, n.url, nil)
		c.send(`{"id":1,"connect":{"token":"fails-` + string(failure.Code) + `"}}`)
		if reply := again[failure.Code]; reply != "" {
			assert.JSONEq(t, reply, c.receive(), failure.Code)
			continue
		}
		code, _ := c.closed()
		assert.Equal(t, 3500, code, failure.Code)
	}

	subscribing := map[models.Code]int{
		models.CodeInternal: 100, models.CodeUnavailable: 100, models.CodeTooManyRequests: 111,
		models.CodeBookingNotFound: 102, models.CodeResourceMissing: 102, models.CodeDisplayMissing: 102, models.CodeOrgMissing: 102,
	}
	c := dial(t, n.url, nil)
	c.connect("patient")
	for _, failure := range models.Failures {
		w.mu.Lock()
		w.failBooking = models.Errorf(failure.Code, "a failure of the source")
		w.mu.Unlock()
		c.send(`{"id":2,"subscribe":{"channel":"booking:` + id + `"}}`)
		want, ok := subscribing[failure.Code]
		if !ok {
			want = 103
		}
		assert.Contains(t, c.receive(), fmt.Sprintf(`"code":%d,`, want), failure.Code)
	}
}

func TestKeyThatHasExpiredIsRefusedForGood(t *testing.T) {
	n := small(t).node(realtime.Options{})
	p := newPhone(t, n.url, true, centrifuge.Config{Token: "fails-" + string(models.CodeKeyExpired)})
	assert.Equal(t, "bad token", receive(t, p.disconnects))
	assert.Equal(t, centrifuge.StateDisconnected, p.State())
}

// The libraries wait 5 s for the answer to a command. The commands of one frame
// share the time that the source has.
func TestSlowSourceIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	w := small(t)
	n := w.node(realtime.Options{})
	c := dial(t, n.url, nil)
	c.connect("patient")
	w.mu.Lock()
	w.stuck = true
	w.mu.Unlock()
	began := time.Now()
	c.send(`{"id":2,"subscribe":{"channel":"booking:b1"}}`, `{"id":3,"subscribe":{"channel":"booking:b2"}}`, `{"id":4,"refresh":{"token":"stuck"}}`)
	replies := ""
	for strings.Count(replies, `"temporary":true`) < 3 {
		replies += c.receive()
	}
	assert.Less(t, time.Since(began), 4800*time.Millisecond)
}

// A refresh with an expired token ends the connection, not the client: the
// library comes back with a new token.
func TestLibraryComesBackAfterALateRefresh(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	w.allow("short", realtime.Client{OrganizationID: organization, UserID: "patient", ExpiresAt: time.Now().Add(time.Second)})
	tokens := make(chan string, 2)
	tokens <- "expired"
	tokens <- "patient"
	p := newPhone(t, n.url, false, centrifuge.Config{Token: "short", GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
		return <-tokens, nil
	}})
	receive(t, p.connects)
	receive(t, p.connects)
	assert.Empty(t, p.disconnects)
}

func TestChangedMemberIsAskedForANewToken(t *testing.T) {
	w := small(t)
	n := w.node(realtime.Options{})
	w.allow("session", realtime.Client{OrganizationID: organization, UserID: "member", CredentialID: "session"})
	c := dial(t, n.url, nil)
	c.connect("session")
	n.hub.Revoke("member")
	code, reason := c.closed()
	assert.Equal(t, "3014 state invalidated", fmt.Sprint(code, " ", reason))
}

// The API reference lists every code, in the words that clients are sent.
func TestEveryCodeIsInTheReference(t *testing.T) {
	source, err := os.ReadFile("protocol.go")
	require.NoError(t, err)
	for pattern, listed := range map[string][]realtime.CodeText{
		`= disconnect\{(\d+), "([^"]+)"`: realtime.CloseCodes, `protocol\.Error\{Code: (\d+), Message: "([^"]+)"`: realtime.Errors,
	} {
		texts := map[string]bool{}
		for _, c := range listed {
			texts[fmt.Sprint(c.Code, " ", c.Reason)] = true
			assert.NotEmpty(t, c.About, c.Code)
		}
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1)
		assert.NotEmpty(t, found)
		for _, code := range found {
			assert.True(t, texts[code[1]+" "+code[2]], "%s %s", code[1], code[2])
		}
	}
}
