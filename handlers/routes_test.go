package handlers_test

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// document is the OpenAPI document.
func (h *house) document() answer {
	h.t.Helper()
	return h.send(request{method: http.MethodGet, path: "/openapi.json"}).ok()
}

// operationsAt are the operations of a path by method.
func (a answer) operationsAt(path string) object {
	a.t.Helper()
	item, ok := a.members("paths")[path].(object)
	require.True(a.t, ok, path)
	return item
}

// operationDoc is one operation as the document has it.
type operationDoc struct {
	method, path string
	who          []string
	body         bool
}

func (h *house) operations() []operationDoc {
	h.t.Helper()
	var ops []operationDoc
	doc := h.document()
	for path := range doc.members("paths") {
		for method, op := range doc.operationsAt(path) {
			ops = append(ops, operationDoc{strings.ToUpper(method), path, answer{t: h.t, of: path, body: op}.pluck("x-who", ""), at(op, "requestBody") != nil})
		}
	}
	slices.SortFunc(ops, func(a, b operationDoc) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return ops
}

// TestEveryRoute walks through all routes as a clinic would, and then makes
// sure that none was forgotten.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		get, post, put, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete

		// Organizations and keys.
		today := day(0)
		made := h.send(request{method: post, path: "/management/organizations", token: bootstrapKey, body: object{
			"name": "Al Noor", "timezone": "Asia/Riyadh", "businessTypeId": "clinic", "businessCustomConfig": object{"floors": 2},
		}}).ok()
		id := made.str("result.id")
		assert.Equal(t, "clinic", made.str("result.businessTypeId"))
		assert.Equal(t, 2, made.num("result.businessCustomConfig.floors"))
		assert.Contains(t, h.send(request{method: get, path: "/management/organizations", token: bootstrapKey}).ok().pluck("result", "id"), id)
		assert.Equal(t, "Asia/Riyadh", h.send(request{method: get, path: "/management/organizations/" + id, token: bootstrapKey}).ok().str("result.timezone"))
		empty := h.send(request{method: post, path: "/management/organizations", token: bootstrapKey, body: object{"name": "Spare", "timezone": "UTC"}}).ok().str("result.id")
		assert.Equal(t, "Moved", h.send(request{method: put, path: "/management/organizations/" + empty, token: bootstrapKey, body: object{"name": "Moved"}}).ok().str("result.name"))
		assert.Equal(t, true, h.send(request{method: del, path: "/management/organizations/" + empty, token: bootstrapKey}).ok().at("result.isDeleted"))
		key := h.send(request{method: post, path: "/management/apiKeys", token: bootstrapKey, app: id, body: object{"name": "desk"}}).ok()
		c := &clinic{house: h, id: id, key: key.str("result.key")}
		c.staff(post, "/management/apiKeys", object{"name": "spare"}).ok()
		keys := c.staff(get, "/management/apiKeys", nil).ok()
		assert.Equal(t, []string{"desk", "spare"}, keys.pluck("result", "name"))
		assert.NotContains(t, string(keys.raw), c.key)
		c.staff(post, "/management/apiKeys/rotate", object{"name": "spare"}).ok()
		assert.Empty(t, c.staff(del, "/management/apiKeys", object{"name": "spare"}).ok().members("result"))
		account := func(method, path string, body any) answer {
			return h.send(request{method: method, path: "/management/account/apiKeys" + path, token: bootstrapKey, body: body}).ok()
		}
		account(post, "", object{"name": "spare"})
		account(post, "/rotate", object{"name": "spare"})
		assert.Equal(t, []string{"spare", "spare"}, account(get, "", nil).pluck("result", "name"))
		account(del, "", object{"name": "spare"})
		assert.Equal(t, "Al Noor", h.send(request{method: get, path: "/management/organizations", header: map[string]string{"X-API-KEY": c.key}}).ok().str("result.0.name"))

		// Members.
		nurseMember := c.staff(post, "/management/members", object{"phone": "+966500000009", "role": "receptionist"}).ok().str("result.id")
		assert.Equal(t, []string{nurseMember}, c.staff(get, "/management/members", nil).ok().pluck("result", "id"))
		assert.Equal(t, "Noura", c.staff(put, "/management/members/"+nurseMember, object{"firstName": "Noura"}).ok().str("result.firstName"))
		assert.NotEmpty(t, c.staff(del, "/management/members", object{"id": nurseMember}).ok().str("message"))

		// Types: the seed's fields come back, a change keeps what it does not name.
		body := object{
			"name": "Checkup", "name_translations": object{"en": "Checkup", "ar": "فحص"}, "description": "All of it", "description_translations": object{"ar": "كله"},
			"minutes": 15, "leaveMinutesBefore": 5, "leaveMinutesAfter": 2.5, "category": "general", "color": "#00ff00", "on": true, "price": "150.00",
			"oldPrice": "200.00", "priceIncrease": "10", "priceIncreaseDays": 3, "depositAmount": "50.00", "depositPercentage": "25",
			"schedule": object{"days": []any{"sun"}}, "timeOptions": object{"showOclock": true}, "photos": []any{object{"url": "https://x.example/1.png"}},
			"autoConfirm": true, "paymentMethods": []any{"manual"}, "bookFromWebsite": true, "prefix": "C",
		}
		kind := c.staff(post, "/management/types", body).ok()
		kindID := kind.str("result.id")
		for field, want := range body {
			assert.EqualValues(t, number(want), kind.at("result."+field), field)
		}
		changed := c.staff(put, "/management/types/"+kindID, object{"minutes": 20, "leaveMinutesAfter": 3}).ok()
		body["minutes"], body["leaveMinutesAfter"] = 20, 3
		for field, want := range body {
			assert.EqualValues(t, number(want), changed.at("result."+field), field)
		}
		arabic := h.send(request{method: get, path: "/management/types/" + kindID, token: c.key, lang: "ar"}).ok()
		assert.Equal(t, "فحص", arabic.str("result.name"))
		assert.Equal(t, "كله", arabic.str("result.description"))
		spare := c.newType(object{"name": "Spare", "prefix": "Z"})
		assert.Equal(t, []string{kindID, spare}, c.staff(get, "/management/types", nil).ok().pluck("result", "id"))
		assert.NotEmpty(t, c.staff(del, "/management/types/"+spare, nil).ok().str("message"))
		assert.Equal(t, []string{kindID}, c.staff(get, "/management/types", nil).ok().pluck("result", "id"))

		// Resources.
		room := object{
			"name": "Dr. Sarah", "name_translations": object{"en": "Dr. Sarah", "ar": "د. سارة"}, "on": true, "description": "Kind", "category": "doctors",
			"photo": object{"url": "https://x.example/2.png"}, "photos": []any{object{"url": "https://x.example/3.png"}}, "bookFromWebsite": true, "activated": true,
			"meta": object{"floor": 2}, "types": []any{kindID},
		}
		withProvider := object{"providerPhone": "+966500000002", "providerEmail": "sarah@example.com"}
		for field, value := range room {
			withProvider[field] = value
		}
		doctor := c.staff(post, "/management/resources", withProvider).ok()
		doctorID := doctor.str("result.id")
		for field, want := range room {
			assert.EqualValues(t, number(want), doctor.at("result."+field), field)
		}
		assert.Nil(t, doctor.at("result.providerPhone"))
		assert.Equal(t, false, doctor.at("result.paused"))
		nurse := c.newResource(object{"name": "Nurse", "category": "nurses"}, kindID)
		off := c.staff(put, "/management/resources/"+nurse, object{"on": false}).ok()
		assert.Equal(t, []any{kindID}, off.at("result.types"), "what is absent stays")
		assert.Equal(t, false, off.at("result.on"))
		assert.Equal(t, []string{doctorID, nurse}, c.staff(get, "/management/resources", nil).ok().pluck("result", "id"))
		assert.Equal(t, "Nurse", c.staff(get, "/management/resources/"+nurse, nil).ok().str("result.name"))
		provider := c.signIn("+966500000002", true)
		assert.Equal(t, "member", provider.str("user.kind"))
		assert.Equal(t, "provider", provider.str("user.role"))
		assert.Equal(t, []any{doctorID}, provider.at("user.resourceIds"))
		mine := func(path string) []string {
			return h.send(request{method: get, path: path, token: provider.str("accessToken")}).ok().pluck("result", "id")
		}
		assert.Equal(t, []string{doctorID}, mine("/management/resources/mine"))
		assert.Equal(t, []string{doctorID}, mine("/management/resources/confirmedViewable"))
		assert.Equal(t, []string{doctorID}, mine("/management/resources/requestsViewable"))
		assert.NotEmpty(t, c.staff(del, "/management/resources/"+nurse, nil).ok().str("message"))

		// What customers see before signing in.
		public := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, app: id, body: body, lang: "ar"}).ok()
		}
		assert.Equal(t, id, public(get, "/availability/organization", nil).str("result.id"))
		offered := public(post, "/availability/types", nil)
		assert.Equal(t, "فحص", offered.str("result.0.name"))
		assert.Equal(t, 0, offered.num("result.0.pendingCount"))
		assert.Nil(t, offered.at("pagination.nextPageToken"))
		assert.Equal(t, false, offered.at("pagination.hasMore"))
		assert.Empty(t, public(post, "/availability/types", object{"resourceFilters": object{"category": "nurses"}}).list("result"))
		assert.Len(t, public(post, "/availability/types", object{"type": kindID, "resourceFilters": object{"resource": doctorID}}).list("result"), 1)
		places := public(post, "/availability/resources", object{"type": kindID, "sortBy": "name", "sortByDirection": "desc"})
		assert.Equal(t, "د. سارة", places.str("result.0.name"))
		assert.Nil(t, places.at("result.0.meta"), "for staff only")
		assert.Equal(t, "د. سارة", public(get, "/availability/resources/"+doctorID, nil).str("result.name"))

		// A customer signs in, joins, looks and leaves.
		session := c.signIn("+966 50 000 0003", false)
		assert.Equal(t, "customer", session.str("user.kind"))
		assert.Equal(t, "+966500000003", session.str("user.phone"))
		expires, err := time.Parse(time.RFC3339Nano, session.str("accessTokenExpiresAt"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(15*time.Minute), expires, time.Minute)
		refresh := session.str("refreshToken")
		again := h.send(request{method: get, path: "/auth/token?refreshToken=" + url.QueryEscape(refresh)}).ok()
		token := h.send(request{method: post, path: "/auth/token", body: object{"refreshToken": again.str("refreshToken")}}).ok().str("accessToken")
		patient := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: token, body: body})
		}
		profile := patient(put, "/customer/profile", object{"firstName": "Mona", "lastName": "Abdullah", "email": "Mona@Example.com", "data": object{"age": 30}}).ok()
		assert.Equal(t, "mona@example.com", profile.str("result.email"))
		assert.Equal(t, "+966500000003", profile.str("result.phone"), "what is absent stays")
		assert.Equal(t, "Mona", patient(get, "/customer/profile", nil).ok().str("result.firstName"))
		joined := patient(put, "/customer/scheduling/new", joining(kindID, object{"note": "First visit", "bookingInfoCustomFields": object{"reason": "cough"}})).ok()
		booking := joined.str("result.id")
		assert.Equal(t, "PENDING_ASSIGNMENT", joined.str("result.status"))
		assert.Equal(t, "WAITING", joined.str("result.stage"))
		assert.Equal(t, "C001", joined.str("result.ticket"))
		assert.Equal(t, 1, joined.num("result.queuePosition"))
		assert.Equal(t, 20, joined.num("result.estimatedWaitMinutes"))
		assert.Equal(t, "cough", joined.str("result.info.reason"))
		assert.Equal(t, "Checkup", joined.str("result.display.type"))
		assert.Equal(t, "Waiting", joined.str("result.display.stage"))
		assert.Nil(t, joined.at("result.customer"))
		assert.NotEmpty(t, joined.str("result.ticketToken"))
		listed := patient(get, "/customer/bookings?status=PENDING_ASSIGNMENT&includes=customer,type,resource", nil).ok()
		assert.Equal(t, booking, listed.str("result.0.id"))
		assert.Equal(t, 1, listed.num("result.0.queuePosition"))
		assert.Equal(t, "Mona", listed.str("result.0.customer.firstName"))
		assert.Equal(t, booking, patient(get, "/customer/bookings/"+booking, nil).ok().str("result.id"))
		phone := patient(post, "/devices", object{"token": "a registration token", "platform": "ios", "lang": "ar"}).ok()
		assert.Equal(t, "ar", phone.str("result.lang"))
		assert.NotEmpty(t, patient(del, "/devices", object{"token": "a registration token"}).ok().str("message"))
		withTicket := func(method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: joined.str("result.ticketToken"), body: body})
		}
		assert.Equal(t, 1, withTicket(get, "/customer/bookings/"+booking, nil).ok().num("result.queuePosition"))
		left := withTicket(post, "/customer/bookings/cancel", object{"bookingId": booking, "reason": "Too long"}).ok()
		assert.Equal(t, "CANCELED", left.str("result.status"))
		assert.Equal(t, "LEFT", left.str("result.stage"))

		// The desk.
		desk := c.join(kindID, object{"customerIdentifier": object{"phone": "+966500000003"}, "priority": 7})
		assert.Equal(t, "Mona", desk.str("customer.firstName"))
		assert.Equal(t, publicURL+"/ticket/"+desk.str("id")+"#"+desk.str("ticketToken"), desk.str("ticketUrl"))
		walkIn := c.join(kindID, object{"customerIdentifier": object{"firstName": "Omar"}, "assignmentTimeout": 30})
		waiting := []string{desk.str("id"), walkIn.str("id")}
		assert.Equal(t, waiting, c.staff(get, "/management/queue?resourceId="+doctorID, nil).ok().pluck("result", "id"))
		assert.Equal(t, waiting, c.staff(get, "/management/bookings/unassigned?resourceId="+doctorID, nil).ok().pluck("result", "id"))
		assert.Equal(t, 2, c.staff(get, "/management/types/"+kindID, nil).ok().num("result.pendingCount"))
		assert.Equal(t, "CALLED", c.act("assign", waiting[0], object{"resourceId": doctorID}).ok().str("result.stage"))
		seen := c.staff(get, "/management/bookings/"+waiting[0], nil).ok()
		assert.Equal(t, doctorID, seen.str("result.resourceId"))
		assert.Equal(t, "Mona", seen.str("result.customer.firstName"))
		assert.Equal(t, "Called", seen.str("result.display.stage"))
		assert.Nil(t, seen.at("result.queuePosition"))
		h.exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), waiting[0])
		assert.Equal(t, 1, c.act("recall", waiting[0], nil).ok().num("result.recallCount"))
		assert.Equal(t, "SERVING", c.act("start", waiting[0], nil).ok().str("result.stage"))
		assert.Equal(t, "DONE", c.act("end", waiting[0], nil).ok().str("result.stage"))
		assert.Equal(t, "SERVING", c.act("undo", waiting[0], nil).ok().str("result.stage"))
		assert.Equal(t, "DONE", c.act("end", waiting[0], nil).ok().str("result.stage"))
		assert.Equal(t, "HELD", c.act("hold", waiting[1], nil).ok().str("result.stage"))
		assert.Equal(t, "WAITING", c.act("return", waiting[1], nil).ok().str("result.stage"))
		c.staff(post, "/management/queue/pause", object{"resourceId": doctorID}).ok()
		c.staff(post, "/management/queue/resume", object{"resourceId": doctorID}).ok()
		assert.Equal(t, waiting[1], c.next(doctorID).ok().str("result.id"))
		assert.Equal(t, "NO_SHOW", c.act("noShow", waiting[1], nil).ok().str("result.stage"))
		gone := c.join(kindID, nil).str("id")
		assert.Equal(t, "CANCELED", c.act("cancel", gone, object{"reason": "Asked to"}).ok().str("result.status"))
		customerID := desk.str("customerId")
		assert.Contains(t, c.staff(get, "/management/customers", nil).ok().pluck("result", "id"), customerID)
		assert.Equal(t, "Abdullah", c.staff(get, "/management/customers/"+customerID, nil).ok().str("result.lastName"))
		assert.Equal(t, "Wheelchair", c.staff(put, "/management/customers/"+customerID, object{"note": "Wheelchair"}).ok().str("result.note"))
		all := c.staff(get, "/management/bookings?customerId="+customerID+"&orderDirection=asc&includes=customer", nil).ok()
		assert.Equal(t, []string{booking, waiting[0]}, all.pluck("result", "id"))
		assert.Equal(t, "Mona", all.str("result.0.customer.firstName"))
		assert.Len(t, c.staff(get, "/management/bookings?dateType=createdAt&from="+today+"&to="+day(0), nil).ok().list("result"), 4)
		assert.Empty(t, c.staff(get, "/management/bookings?to=2020-01-01T00:00:00Z", nil).ok().list("result"))
		assert.Equal(t, []string{waiting[1], waiting[0]}, c.staff(get, "/management/bookings?status=CONFIRMED&resources="+doctorID, nil).ok().pluck("result", "id"))

		twin := c.join(kindID, nil).str("customerId")
		merged := c.staff(post, "/management/customers/merge", object{"customerId": customerID, "duplicateId": twin}).ok()
		assert.Equal(t, customerID, merged.str("result.id"))

		// Displays.
		screen := c.staff(post, "/management/displays", object{"name": "Hall", "resourceIds": []string{doctorID}}).ok()
		assert.Equal(t, publicURL+"/display/"+screen.str("result.id")+"#"+screen.str("result.token"), screen.str("result.url"))
		assert.GreaterOrEqual(t, len(screen.str("result.token")), 26)
		screens := c.staff(get, "/management/displays", nil).ok()
		assert.Equal(t, []string{screen.str("result.id")}, screens.pluck("result", "id"))
		assert.NotContains(t, string(screens.raw), screen.str("result.token"))
		assert.NotEmpty(t, c.staff(del, "/management/displays", object{"id": screen.str("result.id")}).ok().str("message"))

		// Everything held about a customer, and nothing any more.
		assert.Equal(t, "Mona", c.staff(get, "/management/customers/"+customerID+"/export", nil).ok().str("customer.firstName"))
		assert.Equal(t, "Mona", patient(get, "/customer/profile/export", nil).ok().str("customer.firstName"))
		assert.NotEmpty(t, patient(del, "/customer/profile", nil).ok().str("message"))
		assert.NotEmpty(t, c.staff(del, "/management/customers/"+walkIn.str("customerId"), nil).ok().str("message"))

		// The audit.
		assert.Equal(t, screen.str("result.id"), c.staff(get, "/management/audit?action=deleteDisplay", nil).ok().str("result.0.subject.id"))
		h.send(request{method: get, path: "/management/account/audit", token: bootstrapKey}).ok()

		// Messages.
		assert.Contains(t, c.staff(get, "/management/messages", nil).ok().str("result.templates.otp.en.text"), "{{code}}")
		c.staff(put, "/management/messages", object{"reminders": object{"afterAppointment": []string{"sms"}}}).ok()
		assert.Empty(t, c.staff(get, "/management/messages/log", nil).ok().list("result"))

		assert.NotEmpty(t, h.send(request{method: post, path: "/auth/logout", body: object{"refreshToken": refresh}}).ok().str("message"))
		h.send(request{method: post, path: "/auth/token", body: object{"refreshToken": refresh}}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		// This house has a key, so it offers no set-up; cmd/nowserving tries the one that does.
		h.send(request{method: post, path: "/auth/setup", body: object{"token": "guessed"}}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		c.walkWebhooks()
		for _, op := range h.operations() {
			if op.path == "/auth/setup" {
				continue
			}
			pattern := regexp.MustCompile("^" + op.method + " " + regexp.MustCompile(`\{\w+\}`).ReplaceAllString(op.path, `[^/]+`) + "$")
			called := false
			for visited := range h.visited {
				called = called || pattern.MatchString(visited)
			}
			assert.True(t, called, "%s %s was never called", op.method, op.path)
		}
		for _, secret := range []string{c.key, token, refresh, "a registration token", screen.str("result.token"), "+966500000003", "Mona", "mona@example.com", "Too long"} {
			assert.NotContains(t, h.logged.String(), secret, "the log holds what it must not")
		}
	})
}

// number makes whole numbers in an expected value what JSON makes of them.
func number(v any) any {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	if m, ok := v.(object); ok {
		out := object{}
		for k, item := range m {
			out[k] = number(item)
		}
		return out
	}
	return v
}

// TestSignInIsDocumented finds in the document what signing in may answer.
func TestSignInIsDocumented(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	for _, path := range []string{"/auth/otp/request", "/auth/otp/verify", "/auth/token", "/auth/logout"} {
		for method, op := range h.document().operationsAt(path) {
			assert.NotNil(t, at(op, "responses.401"), "%s %s: a wrong code or token", method, path)
			assert.NotNil(t, at(op, "responses.403"), "%s %s: another site", method, path)
		}
	}
	for _, role := range []models.Role{models.RoleOwner, models.RoleAdmin, models.RoleProvider, models.RoleReceptionist, models.RoleScreen} {
		assert.Contains(t, h.document().at("components.schemas.UserView.properties.role.enum"), string(role))
	}
}

// TestPagesShowEveryRowOnce walks each list by its tokens.
func TestPagesShowEveryRowOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kinds := map[string]bool{}
		for i := range 7 {
			kinds[c.newType(object{"name": fmt.Sprintf("Type %d", i)})] = true
		}
		var kind string
		for kind = range kinds {
			break
		}
		rooms, bookings, people, screens := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
		for i := range 7 {
			rooms[c.newResource(object{"name": fmt.Sprintf("Room %d", i)}, kind)] = true
			b := c.join(kind, object{"customerIdentifier": object{"phone": fmt.Sprintf("+9665000001%02d", i)}})
			bookings[b.str("id")], people[b.str("customerId")] = true, true
			screens[c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok().str("result.id")] = true
		}
		room := ""
		for room = range rooms {
			break
		}
		walk := func(page func(token string) answer) (ids []string, pages int) {
			token := ""
			for {
				a := page(token)
				a.ok()
				ids = append(ids, a.pluck("result", "id")...)
				pages++
				assert.Equal(t, a.at("pagination.nextPageToken") != nil, a.at("pagination.hasMore"))
				if token = a.str("pagination.nextPageToken"); token == "" {
					return ids, pages
				}
			}
		}
		for path, want := range map[string]map[string]bool{
			"/management/types?": kinds, "/management/resources?": rooms, "/management/customers?": people, "/management/displays?": screens,
			"/management/bookings?": bookings, "/management/bookings?orderDirection=asc&": bookings, "/management/bookings/unassigned?resourceId=" + room + "&": bookings,
			"/management/resources/confirmedViewable?": rooms,
		} {
			for _, limit := range []int{1, 3, 7, 100000} {
				ids, pages := walk(func(token string) answer {
					return c.staff(http.MethodGet, fmt.Sprintf("%slimit=%d&nextPageToken=%s", path, limit, url.QueryEscape(token)), nil)
				})
				assert.Len(t, ids, len(want), path)
				for _, id := range ids {
					assert.True(t, want[id], path)
				}
				assert.Equal(t, (7+limit-1)/limit, pages, path)
			}
		}
		for path, want := range map[string]map[string]bool{"/availability/types": kinds, "/availability/resources": rooms} {
			for _, more := range []object{{}, {"sortBy": "name", "sortByDirection": "desc"}} {
				if path == "/availability/types" && len(more) > 0 {
					continue // types have one order
				}
				ids, pages := walk(func(token string) answer {
					body := object{"limit": 3, "nextPageToken": token}
					for k, v := range more {
						body[k] = v
					}
					return h.send(request{method: http.MethodPost, path: path, app: c.id, body: body})
				})
				assert.Len(t, ids, len(want))
				assert.Equal(t, 3, pages)
				for _, id := range ids {
					assert.True(t, want[id], path)
				}
			}
		}
		patient := c.patient("+966500000100")
		ids, _ := walk(func(token string) answer {
			return h.send(request{method: http.MethodGet, path: "/customer/bookings?limit=1&nextPageToken=" + token, token: patient})
		})
		assert.Len(t, ids, 1)
		assert.Len(t, c.staff(http.MethodGet, "/management/types", nil).ok().list("result"), 7, "10 by default")
	})
}
