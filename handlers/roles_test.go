package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestACredentialActsForItsOrganizationOnly(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(_ *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		types := nodetest.Request{Method: http.MethodGet, Path: "/management/types"}
		with := func(token, app string) nodetest.Response {
			r := types
			r.Token, r.App = token, app
			return h.Send(r)
		}
		with(nodetest.BootstrapKey, "").Refused(http.StatusBadRequest, models.CodeAppRequired)
		with(nodetest.BootstrapKey, "nobody").Refused(http.StatusNotFound, models.CodeOrgMissing)
		with(nodetest.BootstrapKey, c.ID).OK()
		with(c.Key, "").OK()
		with(c.Key, c.ID).OK()
		with(c.Key, "nobody").Refused(http.StatusForbidden, models.CodeForbidden)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", Token: c.Key, Body: nodetest.Object{}}).OK()
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", Body: nodetest.Object{}}).Refused(http.StatusBadRequest, models.CodeAppRequired)
		for lang, isArabic := range map[string]bool{
			"ar-SA": true, "ar_SA": true, "AR": true, "ar_EG.UTF-8": true, "ar;q=0.9, en": true, "ara": true,
			"en-US": false, "arc": false, "fr, ar": false, "": false, "-ar": true,
		} {
			arabic := nodetest.Request{Method: http.MethodGet, Path: "/management/bookings/nothing", Token: c.Key, Lang: lang}
			detail := h.Send(arabic).Refused(http.StatusNotFound, models.CodeBookingNotFound).Str("detail")
			assert.Equal(t, isArabic, detail == "لا يوجد حجز بهذا المعرّف في المنشأة.", lang)
		}
		basic := types
		basic.Header = map[string]string{"Authorization": "Basic " + c.Key, "X-API-KEY": c.Key}
		h.Send(basic).OK()
		// A deleted key and a deleted organization open nothing.
		spare := c.Staff(http.MethodPost, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK().Str("result.key")
		c.Staff(http.MethodDelete, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK()
		with(spare, "").Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

func TestProvidersActForTheirOwnResources(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		own, other := c.NewResource(nodetest.Object{"providerPhone": "+966500000041"}, kind), c.NewResource(nil, kind)
		token := c.SignIn("+966500000041", true).Str("accessToken")
		as := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body})
		}
		first, second, third := c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id"), c.Join(kind, nil).Str("id")
		get, post := http.MethodGet, http.MethodPost
		as(post, "/management/queue/next", nodetest.Object{"resourceId": other}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/bookings/assign", nodetest.Object{"bookingId": first, "resourceId": other}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/queue/pause", nodetest.Object{"resourceId": other}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(get, "/management/queue?resourceId="+other, nil).Refused(http.StatusForbidden, models.CodeForbidden)
		as(get, "/management/bookings/unassigned?resourceId="+other, nil).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, first, as(post, "/management/queue/next", nodetest.Object{"resourceId": own}).OK().Str("result.id"))
		assert.Equal(t, second, c.Next(other).OK().Str("result.id"))
		as(post, "/management/bookings/start", nodetest.Object{"bookingId": second}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(get, "/management/bookings/"+second, nil).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, []string{first, third}, as(get, "/management/bookings", nil).OK().Pluck("result", "id"), "their own, and who waits")
		assert.Empty(t, as(get, "/management/bookings?resources="+other, nil).OK().List("result"))
		assert.Equal(t, "HELD", as(post, "/management/bookings/hold", nodetest.Object{"bookingId": third}).OK().Str("result.stage"))
		as(post, "/management/bookings/start", nodetest.Object{"bookingId": first}).OK()
		as(post, "/management/queue/pause", nodetest.Object{"resourceId": own}).OK()

		// Who waits for a type that only others serve is none of their business.
		foreign := c.NewType(nil)
		c.NewResource(nil, foreign)
		stranger := c.Join(foreign, nil).Str("id")
		as(get, "/management/bookings/"+stranger, nil).Refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/bookings/cancel", nodetest.Object{"bookingId": stranger}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/bookings/hold", nodetest.Object{"bookingId": stranger}).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.NotContains(t, as(get, "/management/bookings", nil).OK().Pluck("result", "id"), stranger)
	})
}

func TestTicketTokenShowsOneBooking(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		mine, other := c.Join(kind, nil), c.Join(kind, nil)
		as := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: mine.Str("ticketToken"), Body: body})
		}
		shown := as(http.MethodGet, "/customer/bookings/"+mine.Str("id")+"?includes=customer", nil).OK()
		assert.Equal(t, mine.Str("ticket"), shown.Str("result.ticket"))
		assert.Nil(t, shown.At("result.customer"), "whoever holds the paper")
		as(http.MethodGet, "/customer/bookings/"+other.Str("id"), nil).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		as(http.MethodPost, "/customer/bookings/cancel", nodetest.Object{"bookingId": other.Str("id")}).Refused(http.StatusNotFound, models.CodeBookingNotFound)
		as(http.MethodPost, "/customer/bookings/cancel", nodetest.Object{"bookingId": mine.Str("id")}).OK()
	})
}
