package handlers_test

import (
	"net/http"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

// TestWhoMay tries every route with every credential. Those the route names
// get past the door (to whatever a request without sense is answered); all
// others are refused, and nothing changes.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.fill()
		joined := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: c.patientToken, body: joining(c.kind, nil)}).ok()
		credentials := map[string]string{
			"account key": bootstrapKey, "organization key": c.key,
			"owner": c.member(models.RoleOwner, "+966500000031"), "admin": c.member(models.RoleAdmin, "+966500000032"),
			"receptionist": c.member(models.RoleReceptionist, "+966500000033"), "provider": c.member(models.RoleProvider, "+966500000034"),
			"customer": c.patientToken, "ticket": joined.str("result.ticketToken"),
			"display": c.staff(http.MethodPost, "/management/displays", object{"name": "Door"}).ok().str("result.token"),
		}
		parameter := regexp.MustCompile(`\{\w+\}`)
		before := h.contents()
		for _, op := range h.operations() {
			path := parameter.ReplaceAllString(op.path, "d3q1v5s8k7c0a1b2c3d0")
			r := request{method: op.method, path: path, app: c.id}
			if op.body {
				r.body = `[]` // never right, and looked at only behind the door
			}
			nobody := h.send(r)
			if len(op.who) == 0 {
				assert.NotContains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, nobody.status, "%s %s", op.method, op.path)
				continue
			}
			nobody.refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			assert.Equal(t, "Bearer", nobody.header.Get("WWW-Authenticate"))
			for name, token := range credentials {
				r.token = token
				a := h.send(r)
				if slices.Contains(op.who, name) {
					assert.NotContains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, a.status, "%s: %s %s: %s", name, op.method, op.path, a.raw)
				} else {
					t.Log(name)
					a.refused(http.StatusForbidden, models.CodeForbidden)
				}
			}
			r.token = "nonsense"
			h.send(r).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		}
		assert.Equal(t, before, h.contents())
	})
}

// TestDoorsAreMarked pins who may do what matters most, against a slip in the
// table itself.
func TestDoorsAreMarked(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	managers := []string{"account key", "organization key", "owner", "admin"}
	staff := append(slices.Clone(managers), "receptionist", "provider")
	public := 0
	for _, op := range h.operations() {
		switch {
		case op.path == "/management/organizations" && op.method == http.MethodPost:
			assert.Equal(t, []string{"account key"}, op.who)
		case op.path == "/management/organizations/{id}" && op.method == http.MethodDelete:
			assert.Equal(t, []string{"account key", "owner"}, op.who)
		case op.path == "/management/organizations/{id}" && op.method == http.MethodPut:
			assert.Equal(t, managers, op.who)
		case op.path == "/management/displays" && op.method == http.MethodGet:
			assert.Equal(t, append(slices.Clone(staff), "screen"), op.who)
		case op.path == "/management/audit":
			assert.Equal(t, []string{"account key", "organization key", "owner"}, op.who)
		case op.path == "/management/account/audit":
			assert.Equal(t, []string{"account key"}, op.who)
		case regexp.MustCompile(`^/management/(types|resources|displays)`).MatchString(op.path) && op.method != http.MethodGet:
			assert.Equal(t, managers, op.who, op.path)
		case regexp.MustCompile(`^/management/account/`).MatchString(op.path):
			assert.Equal(t, []string{"account key"}, op.who, op.path)
		case regexp.MustCompile(`^/management/(messages|webhooks|apiKeys|members)`).MatchString(op.path):
			assert.Equal(t, managers, op.who, op.path)
		case regexp.MustCompile(`^/management/`).MatchString(op.path):
			assert.Equal(t, staff, op.who, op.path)
		case op.path == "/customer/bookings/cancel" || op.path == "/customer/bookings/{bookingId}":
			assert.Equal(t, []string{"customer", "ticket"}, op.who)
		case regexp.MustCompile(`^/customer/`).MatchString(op.path):
			assert.Equal(t, []string{"customer"}, op.who, op.path)
		case op.path == "/devices":
			assert.Equal(t, []string{"owner", "admin", "receptionist", "provider", "customer"}, op.who)
		default:
			assert.Regexp(t, `^/(auth|availability)/`, op.path)
			assert.Empty(t, op.who)
			public++
		}
	}
	assert.Equal(t, 9, public)
}

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
		arabic := request{method: http.MethodGet, path: "/management/bookings/nothing", token: c.key, lang: "ar-SA"}
		assert.Equal(t, "لا يوجد حجز بهذا المعرّف في المنشأة.", h.send(arabic).refused(http.StatusNotFound, models.CodeBookingNotFound).str("detail"))
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
		assert.Equal(t, []string{third, first}, as(get, "/management/bookings", nil).ok().pluck("result", "id"), "their own, and who waits")
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
