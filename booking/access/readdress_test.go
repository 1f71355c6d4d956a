package access_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// A code that was sent to a customer's former address does not sign in. Messages that wait
// for that address are dropped, and those to other addresses are sent.
func TestAnAddressThatIsLeft(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		const mine, next = "mine@clinic.example", "next@clinic.example"
		byMail := func(address string, member bool) nodetest.Object {
			return nodetest.Object{"method": "email", "email": address, "isOrgMember": member}
		}
		ask := func(address string, member bool) {
			c.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Body: byMail(address, member)}).OK()
		}
		verify := func(address string, member bool) nodetest.Response {
			body := byMail(address, member)
			body["code"] = nodetest.FixedCode
			return c.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: body})
		}
		worker := nodetest.Hire(c, nodetest.Object{"email": mine, "role": "receptionist"}).OK().Str("result.id")
		ask(mine, false)
		patient := verify(mine, false).OK()
		ask(mine, false)
		ask(mine, true)
		ask("other@clinic.example", false)
		const waiting = "SELECT count(*) FROM river_job WHERE kind = 'message' AND finalized_at IS NULL AND args ->> 'sealed' <> ''"
		require.Equal(t, 4, nodetest.Scalar[int](h, waiting), "nobody takes them")

		// The patient has another address: the member of the same one keeps theirs.
		profile := func(body nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/profile", Token: patient.Str("accessToken"), Body: body})
		}
		ask(next, false)
		profile(nodetest.Object{"email": next, "code": nodetest.FixedCode}).OK()
		assert.Equal(t, 3, nodetest.Scalar[int](h, waiting))
		verify(mine, false).Refused(http.StatusUnauthorized, models.CodeWrongCode)
		c.Staff(http.MethodPut, nodetest.MembersPath+"/"+worker, nodetest.Object{"email": next}).OK()
		assert.Equal(t, 2, nodetest.Scalar[int](h, waiting))
		verify(mine, true).Refused(http.StatusUnauthorized, models.CodeWrongCode)
		verify("other@clinic.example", false).OK()

		// The counts of the address stay. A sign-in with it now creates a new customer.
		assert.Equal(t, 4, nodetest.Scalar[int](h, "SELECT count(*) FROM one_time_codes WHERE kind = 'customer'"))
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT sum(failures) FROM code_guesses"), "a code that was retired is no guess")
		ask(mine, false)
		assert.NotEqual(t, patient.Str("user.id"), verify(mine, false).OK().Str("user.id"))
		ask(mine, true)
		verify(mine, true).Refused(http.StatusUnauthorized, models.CodeWrongCode)
		ask(next, false)
		assert.Equal(t, patient.Str("user.id"), verify(next, false).OK().Str("user.id"))
		ask(next, true)
		assert.Equal(t, worker, verify(next, true).OK().Str("user.id"))

		// Who works there no longer.
		nodetest.Hire(c, nodetest.Object{"phone": "+966500000499", "role": "owner"}).OK()
		ask(next, true)
		c.Staff(http.MethodDelete, nodetest.MembersPath, nodetest.Object{"id": worker}).OK()
		verify(next, true).Refused(http.StatusUnauthorized, models.CodeWrongCode)
		nodetest.Hire(c, nodetest.Object{"email": next, "role": "admin"}).OK()
		verify(next, true).Refused(http.StatusUnauthorized, models.CodeWrongCode)
	}, nodetest.Outgoing)
}

// An address that a patient claims without proof is shown, but does not sign in. A sign-in
// with it creates another customer, and the response does not tell whether the address is
// known.
func TestAClaimedAddress(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		const mine, yours = "+966500000661", "+966500000662"
		me := c.SignIn(mine, false)
		profile := func(body nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/profile", Token: me.Str("accessToken"), Body: body})
		}
		shown := func() nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile", Token: me.Str("accessToken")}).OK()
		}
		assert.Equal(t, yours, profile(nodetest.Object{"phone": "00966 50 000 0662", "email": "Mona@Clinic.example"}).OK().Str("result.phone"))
		assert.Equal(t, "mona@clinic.example", shown().Str("result.email"))
		seen := c.Staff(http.MethodGet, "/management/customers/"+me.Str("user.id"), nil).OK()
		assert.Equal(t, yours, seen.Str("result.phone"))
		booked := c.Join(c.NewType(nil), nodetest.Object{"customerIdentifier": nodetest.Object{"id": me.Str("user.id")}})

		you := c.SignIn(yours, false)
		assert.NotEqual(t, me.Str("user.id"), you.Str("user.id"))
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + booked.Str("id"), Token: you.Str("accessToken")}).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		assert.Equal(t, me.Str("user.id"), c.SignIn(mine, false).Str("user.id"), "theirs is the number from before")
		profile(nodetest.Object{"phone": yours}).OK() // also now that somebody is known by it

		// The desk that sends back what it sees vouches for nothing.
		c.Staff(http.MethodPut, "/management/customers/"+me.Str("user.id"), nodetest.Object{"phone": yours, "note": "Uses a wheelchair."}).OK()
		profile(nodetest.Object{"phone": "", "email": "mona@clinic.example"}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)

		// A code proves one address, and only to whom it went.
		profile(nodetest.Object{"email": "mona@clinic.example", "code": "999999"}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		profile(nodetest.Object{"email": "new@clinic.example", "phone": "+966500000663", "code": nodetest.FixedCode}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		prove := func(phone string) nodetest.Response {
			c.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": phone, "isOrgMember": false}}).OK()
			return profile(nodetest.Object{"phone": phone, "code": nodetest.FixedCode})
		}
		prove(yours).Refused(http.StatusConflict, models.CodeContactTaken)
		prove("+966500000664").OK()
		assert.Equal(t, me.Str("user.id"), c.SignIn("+966500000664", false).Str("user.id"))
		assert.NotEqual(t, me.Str("user.id"), c.SignIn(mine, false).Str("user.id"), "the number from before is somebody else's")
		shown()
		assert.Equal(t, "+966500000665", c.Staff(http.MethodPut, "/management/customers/"+me.Str("user.id"), nodetest.Object{"phone": "+966500000665"}).OK().Str("result.phone"))
		assert.Equal(t, me.Str("user.id"), c.SignIn("+966500000665", false).Str("user.id"), "staff say what is so")
		profile(nodetest.Object{"note": "x"}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}
