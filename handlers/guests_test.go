package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// change changes the clinic's organization.
func (c *clinic) change(body object) answer {
	c.t.Helper()
	return c.staff(http.MethodPut, "/management/organizations/"+c.id, body)
}

func TestAGuestJoinsWithTheCodeOfTheClinic(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.serve(c.newType(nil))
		c.newResource(nil, kind)
		guest := func(more object) answer {
			return h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", app: c.id, body: joining(kind, more)})
		}
		guest(nil).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		code := c.change(object{"guestJoin": "onSite"}).ok().str("result.onSiteCode")
		require.Len(t, code, 6)
		assert.Equal(t, "onSite", h.send(request{method: http.MethodGet, path: "/availability/organization", app: c.id}).ok().str("result.guestJoin"))
		assert.NotContains(t, scalar[string](h, "SELECT on_site_code_sealed FROM organizations WHERE id = ?", c.id), code)

		guest(nil).refused(http.StatusForbidden, models.CodeOnSite)
		guest(object{"onSiteCode": "ZZZZZZ"}).refused(http.StatusForbidden, models.CodeOnSite)
		guest(object{"onSiteCode": code, "assign": true, "date": day(1), "time": 1000}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		joined := guest(object{"onSiteCode": strings.ToLower(code[:3]) + " " + code[3:], "firstName": "Layla"}).ok()
		id, token := joined.str("result.id"), joined.str("result.ticketToken")
		assert.Equal(t, "WAITING", joined.str("result.stage"))
		assert.Equal(t, "Layla", c.staff(http.MethodGet, "/management/bookings/"+id, nil).ok().str("result.customer.firstName"))

		t.Log("the token is the credential: it shows the booking, live too, and cancels it")
		assert.Len(t, token, 16)
		assert.True(t, strings.HasSuffix(joined.str("result.ticketUrl"), "/ticket/"+id+"#"+token))
		mine := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: token, body: body})
		}
		assert.Equal(t, 1, mine(http.MethodGet, "/customer/bookings/"+id, nil).ok().num("result.queuePosition"))
		_, _, err := h.watch(token, "booking:"+id)
		require.NoError(t, err)
		mine(http.MethodGet, "/customer/bookings", nil).refused(http.StatusForbidden, models.CodeForbidden)
		other := guest(object{"onSiteCode": code}).ok().str("result.id")
		mine(http.MethodGet, "/customer/bookings/"+other, nil).refused(http.StatusNotFound, models.CodeBookingNotFound)
		mine(http.MethodPost, "/customer/bookings/cancel", object{"bookingId": id}).ok()

		t.Log("sent twice, it is one booking")
		twice := func() answer {
			return h.send(request{
				method: http.MethodPut, path: "/customer/scheduling/new", app: c.id, body: joining(kind, object{"onSiteCode": code}),
				header: map[string]string{"Idempotency-Key": "a guest's"},
			}).ok()
		}
		once := twice().str("result.ticketToken")
		assert.Equal(t, once, twice().str("result.ticketToken"))

		t.Log("another code ends the one before; one that the clinic chooses may have digits of any script")
		next := c.change(object{"onSiteCode": ""}).ok().str("result.onSiteCode")
		assert.NotEqual(t, code, next)
		guest(object{"onSiteCode": code}).refused(http.StatusForbidden, models.CodeOnSite)
		c.change(object{"onSiteCode": "2468"}).ok()
		guest(object{"onSiteCode": "٢٤٦٨"}).ok()
		for _, wrong := range []string{"123", "what?!", strings.Repeat("A", 21)} {
			c.change(object{"onSiteCode": wrong}).refused(422, models.CodeInvalid)
		}

		t.Log("who guesses is stopped")
		for range 70 {
			if a := guest(object{"onSiteCode": "WRONG1"}); a.status == http.StatusTooManyRequests {
				guest(object{"onSiteCode": "2468"}).refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
				return
			}
		}
		t.Error("70 wrong codes were looked at")
	})
}

// A ticket's token fits a text message, is kept as a hash, and can't be made up.
func TestTicketTokensAreShort(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"minutes": 30})
		c.newResource(nil, kind)
		seen := map[string]bool{}
		for _, b := range []answer{c.join(kind, nil).ok(), c.join(kind, nil).ok(), c.schedule(kind, 1000, nil).ok()} {
			id, token := b.str("id"), b.str("ticketToken")
			require.Regexp(t, "^[0-9A-Za-z]{16}$", token)
			assert.False(t, seen[token])
			seen[token] = true
			assert.Less(t, len(b.str("ticketUrl")), 80)
			assert.Equal(t, id, h.send(request{method: http.MethodGet, path: "/customer/bookings/" + id, token: token}).ok().str("result.id"))
			wrong := token[:15] + "0"
			if wrong == token {
				wrong = token[:15] + "1"
			}
			h.send(request{method: http.MethodGet, path: "/customer/bookings/" + id, token: wrong}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			assert.NotContains(t, h.contents(), token)
		}

		t.Log("it is good for a day after the visit")
		queued := c.join(kind, nil).ok()
		h.exec("UPDATE bookings SET created_at = ? WHERE id = ?", time.Now().UTC().Add(-25*time.Hour), queued.str("id"))
		h.send(request{method: http.MethodGet, path: "/customer/bookings/" + queued.str("id"), token: queued.str("ticketToken")}).
			refused(http.StatusUnauthorized, models.CodeTokenExpired)
	})
}

// A short name works wherever the organization's id does.
func TestAShortNameWorksWhereverTheIDDoes(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, other := h.newClinic(), h.newClinic()
		kind := c.serve(c.newType(nil))
		assert.Equal(t, "al-noor", c.change(object{"shortName": "Al-Noor"}).ok().str("result.shortName"))
		other.change(object{"shortName": "al-noor"}).refused(http.StatusConflict, models.CodeOrgNameTaken)
		for _, wrong := range []string{"a", "-noor", "al--noor", "al_noor", "2nd", strings.Repeat("a", 41), other.id} {
			c.change(object{"shortName": wrong}).refused(422, models.CodeInvalid)
		}
		types := h.send(request{method: http.MethodPost, path: "/availability/types", app: "al-noor", body: object{"showAll": true}}).ok()
		assert.Equal(t, kind, types.str("result.0.id"))
		assert.Equal(t, c.id, h.send(request{method: http.MethodGet, path: "/availability/organization", app: "Al-Noor"}).ok().str("result.id"))
		h.send(request{method: http.MethodPost, path: "/auth/otp/request", app: "al-noor", body: object{"method": "sms", "phoneNumber": "+966500000301"}}).ok()
		h.send(request{method: http.MethodGet, path: "/management/types", token: c.key, app: "al-noor"}).ok()
		h.send(request{method: http.MethodGet, path: "/management/types", token: other.key, app: "al-noor"}).refused(http.StatusForbidden, models.CodeForbidden)
		h.send(request{method: http.MethodGet, path: "/management/types", token: bootstrapKey, app: "al-noor"}).ok()
		assert.Equal(t, c.id, h.send(request{method: http.MethodGet, path: "/management/organizations/al-noor", token: bootstrapKey}).ok().str("result.id"))
		assert.Equal(t, c.id, c.staff(http.MethodPut, "/management/organizations/al-noor", object{"name": "Al Noor"}).ok().str("result.id"))
		other.staff(http.MethodGet, "/management/organizations/al-noor", nil).refused(http.StatusNotFound, models.CodeOrgMissing)

		t.Log("another name, or none, frees it")
		c.change(object{"shortName": ""}).ok()
		other.change(object{"shortName": "al-noor"}).ok()
		assert.Equal(t, other.id, h.send(request{method: http.MethodGet, path: "/availability/organization", app: "al-noor"}).ok().str("result.id"))
		h.send(request{method: http.MethodGet, path: "/availability/organization", app: "nobody-here"}).refused(http.StatusNotFound, models.CodeOrgMissing)
	})
}

// A number without a country code is one of the organization's country.
func TestLocalNumbersAreOfTheCountry(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic() // in Riyadh
		kind := c.serve(c.newType(nil))
		stored := func(typed string) string {
			return c.join(kind, object{"customerIdentifier": object{"phone": typed}}).ok().str("customer.phone")
		}
		assert.Equal(t, "SA", c.staff(http.MethodGet, "/management/organizations/"+c.id, nil).ok().str("result.country"))
		for _, typed := range []string{"0500000123", "٠٥٠٠٠٠٠١٢٣", "050 000 0123", "500000123", "966500000123", "00966500000123", "+966500000123"} {
			assert.Equal(t, "+966500000123", stored(typed), typed)
		}
		assert.Equal(t, "+442071838750", stored("+44 20 7183 8750"))
		assert.Equal(t, "+966500000123", c.signIn("0500000123", false).str("user.phone"))
		member := c.staff(http.MethodPost, "/management/members", object{"phone": "0500000124", "role": "receptionist"}).ok()
		assert.Equal(t, "+966500000124", member.str("result.phone"))
		c.newResource(object{"providerPhone": "0500000125"}, kind)
		assert.Equal(t, "+966500000125", c.signIn("0500000125", true).str("user.phone"))

		c.change(object{"country": "eg"}).ok()
		assert.Equal(t, "+201001234567", stored("01001234567"))
		c.change(object{"country": "XX"}).refused(422, models.CodeInvalid)
		assert.Equal(t, "SA", c.change(object{"country": ""}).ok().str("result.country"))
		c.staff(http.MethodPut, "/management/scheduling/new", joining(kind, object{"customerIdentifier": object{"phone": "123"}})).refused(422, models.CodeInvalid)
	})
}
