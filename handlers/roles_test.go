package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

func TestTenantOfACredential(t *testing.T) {
	t.Parallel()
	onBoth(t, func(_ *testing.T, h *house) {
		c := h.newClinic()
		types := request{method: http.MethodGet, path: "/management/types"}
		with := func(token, app string) answer {
			r := types
			r.token, r.app = token, app
			return h.send(r)
		}
		with(bootstrapKey, "").refused(http.StatusBadRequest, models.CodeAppRequired)
		with(bootstrapKey, "nobody").refused(http.StatusNotFound, models.CodeOrgMissing)
		with(bootstrapKey, c.id).ok()
		with(c.key, "").ok()
		with(c.key, c.id).ok()
		with(c.key, "nobody").refused(http.StatusForbidden, models.CodeForbidden)
		h.send(request{method: http.MethodPost, path: "/availability/types", token: c.key, body: object{}}).ok()
		h.send(request{method: http.MethodPost, path: "/availability/types", body: object{}}).refused(http.StatusBadRequest, models.CodeAppRequired)
		for lang, isArabic := range map[string]bool{
			"ar-SA": true, "ar_SA": true, "AR": true, "ar_EG.UTF-8": true, "ar;q=0.9, en": true, "ara": true,
			"en-US": false, "arc": false, "fr, ar": false, "": false, "-ar": true,
		} {
			arabic := request{method: http.MethodGet, path: "/management/bookings/nothing", token: c.key, lang: lang}
			detail := h.send(arabic).refused(http.StatusNotFound, models.CodeBookingNotFound).str("detail")
			assert.Equal(t, isArabic, detail == "لا يوجد حجز بهذا المعرّف في المنشأة.", lang)
		}
		basic := types
		basic.header = map[string]string{"Authorization": "Basic " + c.key, "X-API-KEY": c.key}
		h.send(basic).ok()
		// A deleted key and a deleted organization open nothing.
		spare := c.staff(http.MethodPost, "/management/apiKeys", object{"name": "spare"}).ok().str("result.key")
		c.staff(http.MethodDelete, "/management/apiKeys", object{"name": "spare"}).ok()
		with(spare, "").refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	})
}

func TestProvidersActForTheirOwnResources(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		own, other := c.newResource(object{"providerPhone": "+966500000041"}, kind), c.newResource(nil, kind)
		token := c.signIn("+966500000041", true).str("accessToken")
		as := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: token, body: body})
		}
		first, second, third := c.join(kind, nil).str("id"), c.join(kind, nil).str("id"), c.join(kind, nil).str("id")
		get, post := http.MethodGet, http.MethodPost
		as(post, "/management/queue/next", object{"resourceId": other}).refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/bookings/assign", object{"bookingId": first, "resourceId": other}).refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/queue/pause", object{"resourceId": other}).refused(http.StatusForbidden, models.CodeForbidden)
		as(get, "/management/queue?resourceId="+other, nil).refused(http.StatusForbidden, models.CodeForbidden)
		as(get, "/management/bookings/unassigned?resourceId="+other, nil).refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, first, as(post, "/management/queue/next", object{"resourceId": own}).ok().str("result.id"))
		assert.Equal(t, second, c.next(other).ok().str("result.id"))
		as(post, "/management/bookings/start", object{"bookingId": second}).refused(http.StatusForbidden, models.CodeForbidden)
		as(get, "/management/bookings/"+second, nil).refused(http.StatusForbidden, models.CodeForbidden)
		assert.Equal(t, []string{first, third}, as(get, "/management/bookings", nil).ok().pluck("result", "id"), "their own, and who waits")
		assert.Empty(t, as(get, "/management/bookings?resources="+other, nil).ok().list("result"))
		assert.Equal(t, "HELD", as(post, "/management/bookings/hold", object{"bookingId": third}).ok().str("result.stage"))
		as(post, "/management/bookings/start", object{"bookingId": first}).ok()
		as(post, "/management/queue/pause", object{"resourceId": own}).ok()

		// Who waits for a type that only others serve is none of their business.
		foreign := c.newType(nil)
		c.newResource(nil, foreign)
		stranger := c.join(foreign, nil).str("id")
		as(get, "/management/bookings/"+stranger, nil).refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/bookings/cancel", object{"bookingId": stranger}).refused(http.StatusForbidden, models.CodeForbidden)
		as(post, "/management/bookings/hold", object{"bookingId": stranger}).refused(http.StatusForbidden, models.CodeForbidden)
		assert.NotContains(t, as(get, "/management/bookings", nil).ok().pluck("result", "id"), stranger)
	})
}

func TestTicketTokenShowsOneBooking(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		mine, other := c.join(kind, nil), c.join(kind, nil)
		as := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: mine.str("ticketToken"), body: body})
		}
		shown := as(http.MethodGet, "/customer/bookings/"+mine.str("id")+"?includes=customer", nil).ok()
		assert.Equal(t, mine.str("ticket"), shown.str("result.ticket"))
		assert.Nil(t, shown.at("result.customer"), "whoever holds the paper")
		as(http.MethodGet, "/customer/bookings/"+other.str("id"), nil).refused(http.StatusNotFound, models.CodeBookingNotFound)
		as(http.MethodPost, "/customer/bookings/cancel", object{"bookingId": other.str("id")}).refused(http.StatusNotFound, models.CodeBookingNotFound)
		as(http.MethodPost, "/customer/bookings/cancel", object{"bookingId": mine.str("id")}).ok()
	})
}
