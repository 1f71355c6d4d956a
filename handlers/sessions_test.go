package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

func refreshing(token string) request {
	return request{method: http.MethodPost, path: "/auth/token", body: object{"refreshToken": token}}
}

// waitForRefresh makes the sessions' last refresh older than it is.
func (h *house) waitForRefresh(by time.Duration) {
	h.t.Helper()
	h.exec("UPDATE sessions SET refreshed_at = ?", time.Now().UTC().Add(-by))
}

func TestRefreshTokensRotate(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		first := c.signIn("+966500000301", false).str("refreshToken")
		assert.Regexp(t, `^nsr_[0-9a-v]{20}_0_[0-9a-f]{64}$`, first)

		t.Log("a hundred at once get one successor, and so does a late retry")
		successors := map[string]bool{}
		for _, a := range h.atOnce(100, func(int) request { return refreshing(first) }) {
			a.ok()
			assert.NotEmpty(t, a.str("accessToken"))
			assert.Equal(t, "+966500000301", a.str("user.phone"))
			successors[a.str("refreshToken")] = true
		}
		assert.Len(t, successors, 1)
		h.waitForRefresh(5 * time.Second)
		second := h.send(refreshing(first)).ok().str("refreshToken")
		assert.True(t, successors[second])
		assert.NotEqual(t, first, second)
		third := h.send(refreshing(second)).ok()

		t.Log("a used one that comes later ends the session, its access token and its live connection")
		other := c.signIn("+966500000301", false)
		gone := h.attach(third.str("accessToken"))
		h.send(refreshing(second)).ok() // the answer may have been lost
		h.waitForRefresh(11 * time.Second)
		h.send(refreshing(second)).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.send(refreshing(third.str("refreshToken"))).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.send(request{method: http.MethodGet, path: "/customer/bookings", token: third.str("accessToken")}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(dropTime):
			t.Error("the live connection goes on")
		}
		assert.Equal(t, 1, scalar[int](h, "SELECT count(*) FROM audit WHERE action = 'reuseRefreshToken' AND organization_id = ?", c.id))
		h.send(refreshing(other.str("refreshToken"))).ok() // another session of the same person

		t.Log("one whose successor was used is no lost answer")
		old := c.signIn("+966500000302", false).str("refreshToken")
		newer := h.send(refreshing(old)).ok().str("refreshToken")
		h.send(refreshing(newer)).ok()
		h.send(refreshing(old)).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.send(refreshing(newer)).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, other := h.newClinic(), h.newClinic()
		refused := func(token, why string) {
			t.Helper()
			t.Log(why)
			before := scalar[int](h, "SELECT COALESCE(sum(refreshes), 0) FROM sessions")
			h.send(refreshing(token)).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			assert.Equal(t, before, scalar[int](h, "SELECT COALESCE(sum(refreshes), 0) FROM sessions"), why)
		}
		session := c.signIn("+966500000311", false)
		token := session.str("refreshToken")
		parts := strings.Split(token, "_")
		for why, forged := range map[string]string{
			"another number":   strings.Join([]string{parts[0], parts[1], "1", parts[3]}, "_"),
			"a later number":   strings.Join([]string{parts[0], parts[1], "-1", parts[3]}, "_"),
			"another session":  strings.Join([]string{parts[0], models.NewID(), parts[2], parts[3]}, "_"),
			"no prefix":        strings.TrimPrefix(token, "nsr_"),
			"too many parts":   token + "_",
			"another spelling": strings.Replace(token, "_0_", "_00_", 1),
			"another MAC":      strings.Repeat("0", 64),
			"an access token":  session.str("accessToken"),
			"of older kinds":   "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		} {
			refused(forged, why)
		}
		elsewhere := refreshing(token)
		elsewhere.app = other.id
		h.send(elsewhere).refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		t.Log("30 days from the last refresh, 180 in all")
		lasts := func(began, want time.Duration) {
			t.Helper()
			h.exec("UPDATE sessions SET created_at = ?", time.Now().UTC().Add(-began))
			token = h.send(refreshing(token)).ok().str("refreshToken")
			assert.WithinDuration(t, time.Now().Add(want), scalar[time.Time](h, "SELECT expires_at FROM sessions"), time.Minute)
		}
		lasts(0, 30*24*time.Hour)
		lasts(160*24*time.Hour, 20*24*time.Hour)
		h.exec("UPDATE sessions SET expires_at = ?", time.Now().UTC())
		refused(token, "it expired")

		token = c.signIn("+966500000312", false).str("refreshToken")
		h.send(request{method: http.MethodPost, path: "/auth/logout", body: object{"refreshToken": token}}).ok()
		h.send(request{method: http.MethodPost, path: "/auth/logout", body: object{"refreshToken": token}}).ok()
		refused(token, "it was ended")
		line := h.send(request{method: http.MethodGet, path: "/management/audit?action=logout", token: bootstrapKey, app: c.id}).ok()
		assert.Len(t, line.list("result"), 1)
		assert.Equal(t, session.str("user.organizationId"), c.id)

		gone := c.signIn("+966500000313", false)
		h.exec("DELETE FROM customers WHERE id = ?", gone.str("user.id"))
		refused(gone.str("refreshToken"), "the customer is gone")
		c.member(models.RoleOwner, "+966500000314")
		member := c.signIn("+966500000314", true)
		h.exec("DELETE FROM members WHERE id = ?", member.str("user.id"))
		refused(member.str("refreshToken"), "the member is gone")
		last := c.signIn("+966500000315", false).str("refreshToken")
		h.exec("UPDATE organizations SET deleted_at = ? WHERE id = ?", time.Now().UTC(), c.id)
		refused(last, "the organization is gone")
	})
}

// TestAccessTokenSignsOut ends the session of an access token, without its
// refresh token.
func TestAccessTokenSignsOut(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		patient, other := c.signIn("+966500000321", false), c.signIn("+966500000321", false)
		again := h.send(refreshing(patient.str("refreshToken"))).ok()
		assert.NotEqual(t, patient.str("accessToken"), again.str("accessToken"), "of the same second, perhaps")
		gone := h.attach(again.str("accessToken"))
		out := request{method: http.MethodPost, path: "/auth/logout", token: patient.str("accessToken")}
		h.send(out).ok()
		select {
		case e := <-gone:
			assert.EqualValues(t, 3501, e.Code)
		case <-time.After(dropTime):
			t.Error("the live connection goes on")
		}
		h.send(refreshing(again.str("refreshToken"))).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		h.send(out).refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		ticket := c.join(c.newType(nil), nil).str("ticketToken")
		for name, r := range map[string]struct {
			token  string
			status int
			code   models.Code
		}{
			"nothing":  {"", http.StatusUnprocessableEntity, models.CodeInvalid},
			"nonsense": {"nonsense", http.StatusUnauthorized, models.CodeUnauthenticated},
			"a ticket": {ticket, http.StatusForbidden, models.CodeForbidden},
			"a key":    {c.key, http.StatusForbidden, models.CodeForbidden},
		} {
			t.Log(name)
			h.send(request{method: http.MethodPost, path: "/auth/logout", token: r.token, body: object{}}).refused(r.status, r.code)
		}
		h.send(request{method: http.MethodGet, path: "/customer/bookings", token: other.str("accessToken")}).ok()
	})
}
