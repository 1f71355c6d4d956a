package access_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func refreshing(token string) nodetest.Request {
	return nodetest.Request{Method: http.MethodPost, Path: "/auth/token", Body: nodetest.Object{"refreshToken": token}}
}

// waitForRefresh makes the sessions' last refresh older than it is.
func waitForRefresh(h *nodetest.Node, by time.Duration) {
	h.T.Helper()
	h.Exec("UPDATE sessions SET refreshed_at = ?", time.Now().UTC().Add(-by))
}

func TestRefreshTokensRotate(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		first := c.SignIn("+966500000301", false).Str("refreshToken")
		assert.Regexp(t, `^nsr_[0-9a-v]{20}_0_[0-9a-f]{64}$`, first)

		t.Log("a hundred at once get one successor, and so does a late retry")
		successors := map[string]bool{}
		for _, a := range nodetest.AtOnce(h, 100, func(int) nodetest.Request { return refreshing(first) }) {
			a.OK()
			assert.NotEmpty(t, a.Str("accessToken"))
			assert.Equal(t, "+966500000301", a.Str("user.phone"))
			successors[a.Str("refreshToken")] = true
		}
		assert.Len(t, successors, 1)
		waitForRefresh(h, 5*time.Second)
		second := h.Send(refreshing(first)).OK().Str("refreshToken")
		assert.True(t, successors[second])
		assert.NotEqual(t, first, second)
		third := h.Send(refreshing(second)).OK()

		t.Log("a used one that comes later ends the session, its access token and its live connection")
		other := c.SignIn("+966500000301", false)
		gone := nodetest.Attach(h, third.Str("accessToken"))
		h.Send(refreshing(second)).OK() // the answer may have been lost
		waitForRefresh(h, 11*time.Second)
		h.Send(refreshing(second)).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.Send(refreshing(third.Str("refreshToken"))).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: third.Str("accessToken")}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(nodetest.DropTime):
			t.Error("the live connection goes on")
		}
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT count(*) FROM audit WHERE action = 'reuseRefreshToken' AND organization_id = ?", c.ID))
		h.Send(refreshing(other.Str("refreshToken"))).OK() // another session of the same person

		t.Log("one whose successor was used is no lost answer")
		old := c.SignIn("+966500000302", false).Str("refreshToken")
		newer := h.Send(refreshing(old)).OK().Str("refreshToken")
		h.Send(refreshing(newer)).OK()
		h.Send(refreshing(old)).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.Send(refreshing(newer)).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		refused := func(token, why string) {
			t.Helper()
			t.Log(why)
			before := nodetest.Scalar[int](h, "SELECT COALESCE(sum(refreshes), 0) FROM sessions")
			h.Send(refreshing(token)).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			assert.Equal(t, before, nodetest.Scalar[int](h, "SELECT COALESCE(sum(refreshes), 0) FROM sessions"), why)
		}
		session := c.SignIn("+966500000311", false)
		token := session.Str("refreshToken")
		parts := strings.Split(token, "_")
		for why, forged := range map[string]string{
			"another number":   strings.Join([]string{parts[0], parts[1], "1", parts[3]}, "_"),
			"a later number":   strings.Join([]string{parts[0], parts[1], "-1", parts[3]}, "_"),
			"another session":  strings.Join([]string{parts[0], models.NewID(), parts[2], parts[3]}, "_"),
			"no prefix":        strings.TrimPrefix(token, "nsr_"),
			"too many parts":   token + "_",
			"another spelling": strings.Replace(token, "_0_", "_00_", 1),
			"another MAC":      strings.Repeat("0", 64),
			"an access token":  session.Str("accessToken"),
			"of older kinds":   "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		} {
			refused(forged, why)
		}
		elsewhere := refreshing(token)
		elsewhere.App = other.ID
		h.Send(elsewhere).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		t.Log("30 days from the last refresh, 180 in all")
		lasts := func(began, want time.Duration) {
			t.Helper()
			h.Exec("UPDATE sessions SET created_at = ?", time.Now().UTC().Add(-began))
			token = h.Send(refreshing(token)).OK().Str("refreshToken")
			assert.WithinDuration(t, time.Now().Add(want), nodetest.Scalar[time.Time](h, "SELECT expires_at FROM sessions"), time.Minute)
		}
		lasts(0, 30*24*time.Hour)
		lasts(160*24*time.Hour, 20*24*time.Hour)
		h.Exec("UPDATE sessions SET expires_at = ?", time.Now().UTC())
		refused(token, "it expired")

		token = c.SignIn("+966500000312", false).Str("refreshToken")
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": token}}).OK()
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": token}}).OK()
		refused(token, "it was ended")
		line := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/audit?action=logout", Token: nodetest.BootstrapKey, App: c.ID}).OK()
		assert.Len(t, line.List("result"), 1)
		assert.Equal(t, session.Str("user.organizationId"), c.ID)

		gone := c.SignIn("+966500000313", false)
		h.Exec("DELETE FROM customers WHERE id = ?", gone.Str("user.id"))
		refused(gone.Str("refreshToken"), "the customer is gone")
		c.Member(models.RoleOwner, "+966500000314")
		member := c.SignIn("+966500000314", true)
		h.Exec("DELETE FROM members WHERE id = ?", member.Str("user.id"))
		refused(member.Str("refreshToken"), "the member is gone")
		last := c.SignIn("+966500000315", false).Str("refreshToken")
		h.Exec("UPDATE organizations SET deleted_at = ? WHERE id = ?", time.Now().UTC(), c.ID)
		refused(last, "the organization is gone")
	})
}

// TestAccessTokenSignsOut ends the session of an access token, without its
// refresh token.
func TestAccessTokenSignsOut(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		patient, other := c.SignIn("+966500000321", false), c.SignIn("+966500000321", false)
		again := h.Send(refreshing(patient.Str("refreshToken"))).OK()
		assert.NotEqual(t, patient.Str("accessToken"), again.Str("accessToken"), "of the same second, perhaps")
		gone := nodetest.Attach(h, again.Str("accessToken"))
		out := nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Token: patient.Str("accessToken")}
		h.Send(out).OK()
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(nodetest.DropTime):
			t.Error("the live connection goes on")
		}
		h.Send(refreshing(again.Str("refreshToken"))).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.Send(out).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		ticket := c.Join(c.NewType(nil), nil).Str("ticketToken")
		for name, r := range map[string]struct {
			token  string
			status int
			code   models.Code
		}{
			"nothing":  {"", http.StatusUnprocessableEntity, models.CodeInvalid},
			"nonsense": {"nonsense", http.StatusUnauthorized, models.CodeUnauthenticated},
			"a ticket": {ticket, http.StatusForbidden, models.CodeForbidden},
			"a key":    {c.Key, http.StatusForbidden, models.CodeForbidden},
		} {
			t.Log(name)
			h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/logout", Token: r.token, Body: nodetest.Object{}}).Refused(r.status, r.code)
		}
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: other.Str("accessToken")}).OK()
	})
}
