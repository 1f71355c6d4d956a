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
		profile := func(body object) answer {
			return h.send(request{method: http.MethodPut, path: "/customer/profile", token: patient.str("accessToken"), body: body})
		}
		ask(next, false)
		profile(object{"email": next, "code": fixedCode}).ok()
		assert.Equal(t, 3, scalar[int](h, waiting))
		verify(mine, false).refused(http.StatusUnauthorized, models.CodeWrongCode)
		c.staff(http.MethodPut, membersPath+"/"+worker, object{"email": next}).ok()
		assert.Equal(t, 2, scalar[int](h, waiting))
		verify(mine, true).refused(http.StatusUnauthorized, models.CodeWrongCode)
		verify("other@clinic.example", false).ok()

		// What is counted of the address stays, and whoever has it now is somebody new.
		assert.Equal(t, 4, scalar[int](h, "SELECT count(*) FROM one_time_codes WHERE kind = 'customer'"))
		assert.Zero(t, scalar[int](h, "SELECT sum(failures) FROM code_guesses"), "a code that was retired is no guess")
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

// TestAClaimedAddress: what a patient says of themself without proof is shown, and
// signs nobody in. Whoever has the address is somebody else, and known or not is
// not told.
func TestAClaimedAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		const mine, yours = "+966500000661", "+966500000662"
		me := c.signIn(mine, false)
		profile := func(body object) answer {
			return h.send(request{method: http.MethodPut, path: "/customer/profile", token: me.str("accessToken"), body: body})
		}
		shown := func() answer {
			return h.send(request{method: http.MethodGet, path: "/customer/profile", token: me.str("accessToken")}).ok()
		}
		assert.Equal(t, yours, profile(object{"phone": "00966 50 000 0662", "email": "Mona@Clinic.example"}).ok().str("result.phone"))
		assert.Equal(t, "mona@clinic.example", shown().str("result.email"))
		seen := c.staff(http.MethodGet, "/management/customers/"+me.str("user.id"), nil).ok()
		assert.Equal(t, yours, seen.str("result.phone"))
		booked := c.join(c.newType(nil), object{"customerIdentifier": object{"id": me.str("user.id")}})

		you := c.signIn(yours, false)
		assert.NotEqual(t, me.str("user.id"), you.str("user.id"))
		h.send(request{method: http.MethodGet, path: "/customer/bookings/" + booked.str("id"), token: you.str("accessToken")}).refused(http.StatusNotFound, models.CodeBookingNotFound)
		assert.Equal(t, me.str("user.id"), c.signIn(mine, false).str("user.id"), "theirs is the number from before")
		profile(object{"phone": yours}).ok() // also now that somebody is known by it

		// The desk that sends back what it sees vouches for nothing.
		c.staff(http.MethodPut, "/management/customers/"+me.str("user.id"), object{"phone": yours, "note": "Uses a wheelchair."}).ok()
		profile(object{"phone": "", "email": "mona@clinic.example"}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)

		// A code proves one address, and only to whom it went.
		profile(object{"email": "mona@clinic.example", "code": "999999"}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		profile(object{"email": "new@clinic.example", "phone": "+966500000663", "code": fixedCode}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		prove := func(phone string) answer {
			c.send(request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, body: object{"method": "sms", "phoneNumber": phone, "isOrgMember": false}}).ok()
			return profile(object{"phone": phone, "code": fixedCode})
		}
		prove(yours).refused(http.StatusConflict, models.CodeContactTaken)
		prove("+966500000664").ok()
		assert.Equal(t, me.str("user.id"), c.signIn("+966500000664", false).str("user.id"))
		assert.NotEqual(t, me.str("user.id"), c.signIn(mine, false).str("user.id"), "the number from before is somebody else's")
		shown()
		assert.Equal(t, "+966500000665", c.staff(http.MethodPut, "/management/customers/"+me.str("user.id"), object{"phone": "+966500000665"}).ok().str("result.phone"))
		assert.Equal(t, me.str("user.id"), c.signIn("+966500000665", false).str("user.id"), "staff say what is so")
		profile(object{"note": "x"}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}
