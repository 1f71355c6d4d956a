package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// change changes the clinic's organization.
func change(c *nodetest.Clinic, body nodetest.Object) nodetest.Response {
	c.T.Helper()
	return c.Staff(http.MethodPut, "/management/organizations/"+c.ID, body)
}

func TestAGuestJoinsWithTheCodeOfTheClinic(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.Serve(c.NewType(nil))
		c.NewResource(nil, kind)
		guest := func(more nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", App: c.ID, Body: nodetest.Joining(kind, more)})
		}
		guest(nil).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		code := change(c, nodetest.Object{"guestJoin": "onSite"}).OK().Str("result.onSiteCode")
		require.Len(t, code, 6)
		assert.Equal(t, "onSite", h.Send(nodetest.Request{Method: http.MethodGet, Path: "/availability/organization", App: c.ID}).OK().Str("result.guestJoin"))
		assert.NotContains(t, nodetest.Scalar[string](h, "SELECT on_site_code_sealed FROM organizations WHERE id = ?", c.ID), code)

		guest(nil).Refused(http.StatusForbidden, models.CodeOnSite)
		guest(nodetest.Object{"onSiteCode": "ZZZZZZ"}).Refused(http.StatusForbidden, models.CodeOnSite)
		guest(nodetest.Object{"onSiteCode": code, "assign": true, "date": nodetest.Day(1), "time": 1000}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		joined := guest(nodetest.Object{"onSiteCode": strings.ToLower(code[:3]) + " " + code[3:], "firstName": "Layla"}).OK()
		id, token := joined.Str("result.id"), joined.Str("result.ticketToken")
		assert.Equal(t, "WAITING", joined.Str("result.stage"))
		assert.Equal(t, "Layla", c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK().Str("result.customer.firstName"))

		t.Log("the token is the credential: it shows the booking, live too, and cancels it")
		assert.Len(t, token, 16)
		assert.True(t, strings.HasSuffix(joined.Str("result.ticketUrl"), "/ticket/"+id+"#"+token))
		mine := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body})
		}
		assert.Equal(t, 1, mine(http.MethodGet, "/customer/bookings/"+id, nil).OK().Num("result.queuePosition"))
		_, _, err := h.Watch(token, "booking:"+id)
		require.NoError(t, err)
		mine(http.MethodGet, "/customer/bookings", nil).Refused(http.StatusForbidden, models.CodeForbidden)
		other := guest(nodetest.Object{"onSiteCode": code}).OK().Str("result.id")
		mine(http.MethodGet, "/customer/bookings/"+other, nil).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		mine(http.MethodPost, "/customer/bookings/cancel", nodetest.Object{"bookingId": id}).OK()

		t.Log("sent twice, it is one booking")
		twice := func() nodetest.Response {
			return h.Send(nodetest.Request{
				Method: http.MethodPut, Path: "/customer/scheduling/new", App: c.ID, Body: nodetest.Joining(kind, nodetest.Object{"onSiteCode": code}),
				Header: map[string]string{"Idempotency-Key": "a guest's"},
			}).OK()
		}
		once := twice().Str("result.ticketToken")
		assert.Equal(t, once, twice().Str("result.ticketToken"))

		t.Log("another code ends the one before; one that the clinic chooses may have digits of any script")
		next := change(c, nodetest.Object{"onSiteCode": ""}).OK().Str("result.onSiteCode")
		assert.NotEqual(t, code, next)
		guest(nodetest.Object{"onSiteCode": code}).Refused(http.StatusForbidden, models.CodeOnSite)
		change(c, nodetest.Object{"onSiteCode": "2468"}).OK()
		guest(nodetest.Object{"onSiteCode": "٢٤٦٨"}).OK()
		for _, wrong := range []string{"123", "what?!", strings.Repeat("A", 21)} {
			change(c, nodetest.Object{"onSiteCode": wrong}).Refused(422, models.CodeInvalid)
		}

		t.Log("who guesses is stopped")
		for range 70 {
			if a := guest(nodetest.Object{"onSiteCode": "WRONG1"}); a.Status == http.StatusTooManyRequests {
				guest(nodetest.Object{"onSiteCode": "2468"}).Refused(http.StatusTooManyRequests, models.CodeTooManyRequests)
				return
			}
		}
		t.Error("70 wrong codes were looked at")
	})
}

// A ticket's token fits a text message, is kept as a hash, and can't be made up.
func TestTicketTokensAreShort(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"minutes": 30})
		c.NewResource(nil, kind)
		seen := map[string]bool{}
		for _, b := range []nodetest.Response{c.Join(kind, nil).OK(), c.Join(kind, nil).OK(), c.Schedule(kind, 1000, nil).OK()} {
			id, token := b.Str("id"), b.Str("ticketToken")
			require.Regexp(t, "^[0-9A-Za-z]{16}$", token)
			assert.False(t, seen[token])
			seen[token] = true
			assert.Less(t, len(b.Str("ticketUrl")), 80)
			assert.Equal(t, id, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + id, Token: token}).OK().Str("result.id"))
			wrong := token[:15] + "0"
			if wrong == token {
				wrong = token[:15] + "1"
			}
			h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + id, Token: wrong}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			assert.NotContains(t, h.Contents(), token)
		}

		t.Log("it is good for a day after the visit")
		queued := c.Join(kind, nil).OK()
		h.Exec("UPDATE bookings SET created_at = ? WHERE id = ?", time.Now().UTC().Add(-25*time.Hour), queued.Str("id"))
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + queued.Str("id"), Token: queued.Str("ticketToken")}).
			Refused(http.StatusUnauthorized, models.CodeTokenExpired)
	})
}

// A short name works wherever the organization's id does.
func TestAShortNameWorksWhereverTheIDDoes(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, other := h.NewClinic(), h.NewClinic()
		kind := c.Serve(c.NewType(nil))
		assert.Equal(t, "al-noor", change(c, nodetest.Object{"shortName": "Al-Noor"}).OK().Str("result.shortName"))
		change(other, nodetest.Object{"shortName": "al-noor"}).Refused(http.StatusConflict, models.CodeOrgNameTaken)
		for _, wrong := range []string{"a", "-noor", "al--noor", "al_noor", "2nd", strings.Repeat("a", 41), other.ID} {
			change(c, nodetest.Object{"shortName": wrong}).Refused(422, models.CodeInvalid)
		}
		types := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: "al-noor", Body: nodetest.Object{"showAll": true}}).OK()
		assert.Equal(t, kind, types.Str("result.0.id"))
		assert.Equal(t, c.ID, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/availability/organization", App: "Al-Noor"}).OK().Str("result.id"))
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/request", App: "al-noor", Body: nodetest.Object{"method": "sms", "phoneNumber": "+966500000301"}}).OK()
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: c.Key, App: "al-noor"}).OK()
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: other.Key, App: "al-noor"}).Refused(http.StatusForbidden, models.CodeForbidden)
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: nodetest.BootstrapKey, App: "al-noor"}).OK()
		assert.Equal(t, c.ID, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/organizations/al-noor", Token: nodetest.BootstrapKey}).OK().Str("result.id"))
		assert.Equal(t, c.ID, c.Staff(http.MethodPut, "/management/organizations/al-noor", nodetest.Object{"name": "Al Noor"}).OK().Str("result.id"))
		other.Staff(http.MethodGet, "/management/organizations/al-noor", nil).Refused(http.StatusNotFound, models.CodeOrgMissing)

		t.Log("another name, or none, frees it")
		change(c, nodetest.Object{"shortName": ""}).OK()
		change(other, nodetest.Object{"shortName": "al-noor"}).OK()
		assert.Equal(t, other.ID, h.Send(nodetest.Request{Method: http.MethodGet, Path: "/availability/organization", App: "al-noor"}).OK().Str("result.id"))
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/availability/organization", App: "nobody-here"}).Refused(http.StatusNotFound, models.CodeOrgMissing)
	})
}

// A number without a country code is one of the organization's country.
func TestLocalNumbersAreOfTheCountry(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic() // in Riyadh
		kind := c.Serve(c.NewType(nil))
		stored := func(typed string) string {
			return c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": typed}}).OK().Str("customer.phone")
		}
		assert.Equal(t, "SA", c.Staff(http.MethodGet, "/management/organizations/"+c.ID, nil).OK().Str("result.country"))
		for _, typed := range []string{"0500000123", "٠٥٠٠٠٠٠١٢٣", "050 000 0123", "500000123", "966500000123", "00966500000123", "+966500000123"} {
			assert.Equal(t, "+966500000123", stored(typed), typed)
		}
		assert.Equal(t, "+442071838750", stored("+44 20 7183 8750"))
		assert.Equal(t, "+966500000123", c.SignIn("0500000123", false).Str("user.phone"))
		member := c.Staff(http.MethodPost, "/management/members", nodetest.Object{"phone": "0500000124", "role": "receptionist"}).OK()
		assert.Equal(t, "+966500000124", member.Str("result.phone"))
		c.NewResource(nodetest.Object{"providerPhone": "0500000125"}, kind)
		assert.Equal(t, "+966500000125", c.SignIn("0500000125", true).Str("user.phone"))

		change(c, nodetest.Object{"country": "eg"}).OK()
		assert.Equal(t, "+201001234567", stored("01001234567"))
		change(c, nodetest.Object{"country": "XX"}).Refused(422, models.CodeInvalid)
		assert.Equal(t, "SA", change(c, nodetest.Object{"country": ""}).OK().Str("result.country"))
		c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "123"}})).Refused(422, models.CodeInvalid)
	})
}
