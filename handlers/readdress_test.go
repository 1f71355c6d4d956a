package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// TestAnAddressThatIsLeft: a code that went to an address somebody has left opens
// nothing, what waits to go there does not, and what others were sent goes on.
func TestAnAddressThatIsLeft(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		const mine, next = "mine@clinic.example", "next@clinic.example"
		byMail := func(address string, member bool) object {
			return object{"method": "email", "email": address, "isOrgMember": member}
		}
		ask := func(address string, member bool) {
			c.send(request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, body: byMail(address, member)}).ok()
		}
		verify := func(address string, member bool) answer {
			body := byMail(address, member)
			body["code"] = fixedCode
			return c.send(request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: body})
		}
		worker := c.hire(object{"email": mine, "role": "receptionist"}).ok().str("result.id")
		ask(mine, false)
		patient := verify(mine, false).ok()
		ask(mine, false)
		ask(mine, true)
		ask("other@clinic.example", false)
		const waiting = "SELECT count(*) FROM river_job WHERE kind = 'message' AND finalized_at IS NULL AND args ->> 'sealed' <> ''"
		require.Equal(t, 4, scalar[int](h, waiting), "nobody takes them")

		// The patient has another address: the member of the same one keeps theirs.
		change := request{method: http.MethodPut, path: "/customer/profile", token: patient.str("accessToken"), body: object{"email": next}}
		h.send(change).ok()
		assert.Equal(t, 2, scalar[int](h, waiting))
		verify(mine, false).refused(http.StatusUnauthorized, models.CodeWrongCode)
		c.staff(http.MethodPut, membersPath+"/"+worker, object{"email": next}).ok()
		assert.Equal(t, 1, scalar[int](h, waiting))
		verify(mine, true).refused(http.StatusUnauthorized, models.CodeWrongCode)
		verify("other@clinic.example", false).ok()

		// What is counted of the address stays, and whoever has it now is somebody new.
		assert.Equal(t, 2, scalar[int](h, "SELECT count(*) FROM one_time_codes WHERE address = ? AND kind = 'customer'", mine))
		assert.Equal(t, 2, scalar[int](h, "SELECT sum(failures) + count(*) FROM code_guesses WHERE address = ?", mine), "a code that was retired is no guess")
		ask(mine, false)
		assert.NotEqual(t, patient.str("user.id"), verify(mine, false).ok().str("user.id"))
		ask(mine, true)
		verify(mine, true).refused(http.StatusUnauthorized, models.CodeWrongCode)
		ask(next, false)
		assert.Equal(t, patient.str("user.id"), verify(next, false).ok().str("user.id"))
		ask(next, true)
		assert.Equal(t, worker, verify(next, true).ok().str("user.id"))

		// Who works there no longer.
		c.hire(object{"phone": "+966500000499", "role": "owner"}).ok()
		ask(next, true)
		c.staff(http.MethodDelete, membersPath, object{"id": worker}).ok()
		verify(next, true).refused(http.StatusUnauthorized, models.CodeWrongCode)
		c.hire(object{"email": next, "role": "admin"}).ok()
		verify(next, true).refused(http.StatusUnauthorized, models.CodeWrongCode)
	}, outgoing)
}
