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

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// document is the OpenAPI document.
func document(h *nodetest.Node) nodetest.Response {
	h.T.Helper()
	return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/openapi.json"}).OK()
}

// operationsAt are the operations of a path by method.
func operationsAt(a nodetest.Response, path string) nodetest.Object {
	a.T.Helper()
	item, ok := a.Members("paths")[path].(nodetest.Object)
	require.True(a.T, ok, path)
	return item
}

// operationDoc is one operation as the document has it.
type operationDoc struct {
	method, path string
	who          []string
	body         bool
}

func operations(h *nodetest.Node) []operationDoc {
	h.T.Helper()
	var ops []operationDoc
	doc := document(h)
	for path := range doc.Members("paths") {
		for method, op := range operationsAt(doc, path) {
			ops = append(ops, operationDoc{strings.ToUpper(method), path, nodetest.Response{T: h.T, Of: path, Body: op}.Pluck("x-who", ""), nodetest.At(op, "requestBody") != nil})
		}
	}
	slices.SortFunc(ops, func(a, b operationDoc) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return ops
}

// TestEveryRoute walks through all routes as a clinic would, and then makes
// sure that none was forgotten.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		get, post, put, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete

		// Organizations and keys.
		today := nodetest.Day(0)
		made := h.Send(nodetest.Request{Method: post, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{
			"name": "Al Noor", "timezone": "Asia/Riyadh", "businessTypeId": "clinic", "businessCustomConfig": nodetest.Object{"floors": 2},
		}}).OK()
		id := made.Str("result.id")
		assert.Equal(t, "clinic", made.Str("result.businessTypeId"))
		assert.Equal(t, 2, made.Num("result.businessCustomConfig.floors"))
		assert.Contains(t, h.Send(nodetest.Request{Method: get, Path: "/management/organizations", Token: nodetest.BootstrapKey}).OK().Pluck("result", "id"), id)
		assert.Equal(t, "Asia/Riyadh", h.Send(nodetest.Request{Method: get, Path: "/management/organizations/" + id, Token: nodetest.BootstrapKey}).OK().Str("result.timezone"))
		empty := h.Send(nodetest.Request{Method: post, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "Spare", "timezone": "UTC"}}).OK().Str("result.id")
		assert.Equal(t, "Moved", h.Send(nodetest.Request{Method: put, Path: "/management/organizations/" + empty, Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "Moved"}}).OK().Str("result.name"))
		assert.Equal(t, true, h.Send(nodetest.Request{Method: del, Path: "/management/organizations/" + empty, Token: nodetest.BootstrapKey}).OK().At("result.isDeleted"))
		key := h.Send(nodetest.Request{Method: post, Path: "/management/apiKeys", Token: nodetest.BootstrapKey, App: id, Body: nodetest.Object{"name": "desk"}}).OK()
		c := &nodetest.Clinic{Node: h, ID: id, Key: key.Str("result.key")}
		c.Staff(post, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK()
		keys := c.Staff(get, "/management/apiKeys", nil).OK()
		assert.Equal(t, []string{"desk", "spare"}, keys.Pluck("result", "name"))
		assert.NotContains(t, string(keys.Raw), c.Key)
		c.Staff(post, "/management/apiKeys/rotate", nodetest.Object{"name": "spare"}).OK()
		assert.Empty(t, c.Staff(del, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK().Members("result"))
		account := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: "/management/account/apiKeys" + path, Token: nodetest.BootstrapKey, Body: body}).OK()
		}
		account(post, "", nodetest.Object{"name": "spare"})
		account(post, "/rotate", nodetest.Object{"name": "spare"})
		assert.Equal(t, []string{"spare", "spare"}, account(get, "", nil).Pluck("result", "name"))
		account(del, "", nodetest.Object{"name": "spare"})
		assert.Equal(t, "Al Noor", h.Send(nodetest.Request{Method: get, Path: "/management/organizations", Header: map[string]string{"X-API-KEY": c.Key}}).OK().Str("result.0.name"))

		// Members.
		nurseMember := c.Staff(post, "/management/members", nodetest.Object{"phone": "+966500000009", "role": "receptionist"}).OK().Str("result.id")
		assert.Equal(t, []string{nurseMember}, c.Staff(get, "/management/members", nil).OK().Pluck("result", "id"))
		assert.Equal(t, "Noura", c.Staff(put, "/management/members/"+nurseMember, nodetest.Object{"firstName": "Noura"}).OK().Str("result.firstName"))
		assert.NotEmpty(t, c.Staff(del, "/management/members", nodetest.Object{"id": nurseMember}).OK().Str("message"))

		// Types: the seed's fields come back, a change keeps what it does not name.
		body := nodetest.Object{
			"name": "Checkup", "name_translations": nodetest.Object{"en": "Checkup", "ar": "فحص"}, "description": "All of it", "description_translations": nodetest.Object{"ar": "كله"},
			"minutes": 15, "leaveMinutesBefore": 5, "leaveMinutesAfter": 2.5, "category": "general", "color": "#00ff00", "on": true, "price": "150.00",
			"oldPrice": "200.00", "priceIncrease": "10", "priceIncreaseDays": 3, "depositAmount": "50.00", "depositPercentage": "25",
			"schedule": nodetest.Object{"days": []any{"sun"}}, "timeOptions": nodetest.Object{"showOclock": true}, "photos": []any{nodetest.Object{"url": "https://x.example/1.png"}},
			"autoConfirm": true, "paymentMethods": []any{"manual"}, "bookFromWebsite": true, "prefix": "C",
		}
		kind := c.Staff(post, "/management/types", body).OK()
		kindID := kind.Str("result.id")
		for field, want := range body {
			assert.EqualValues(t, number(want), kind.At("result."+field), field)
		}
		changed := c.Staff(put, "/management/types/"+kindID, nodetest.Object{"minutes": 20, "leaveMinutesAfter": 3}).OK()
		body["minutes"], body["leaveMinutesAfter"] = 20, 3
		for field, want := range body {
			assert.EqualValues(t, number(want), changed.At("result."+field), field)
		}
		arabic := h.Send(nodetest.Request{Method: get, Path: "/management/types/" + kindID, Token: c.Key, Lang: "ar"}).OK()
		assert.Equal(t, "فحص", arabic.Str("result.name"))
		assert.Equal(t, "كله", arabic.Str("result.description"))
		spare := c.NewType(nodetest.Object{"name": "Spare", "prefix": "Z"})
		assert.Equal(t, []string{kindID, spare}, c.Staff(get, "/management/types", nil).OK().Pluck("result", "id"))
		assert.NotEmpty(t, c.Staff(del, "/management/types/"+spare, nil).OK().Str("message"))
		assert.Equal(t, []string{kindID}, c.Staff(get, "/management/types", nil).OK().Pluck("result", "id"))

		// Resources.
		room := nodetest.Object{
			"name": "Dr. Sarah", "name_translations": nodetest.Object{"en": "Dr. Sarah", "ar": "د. سارة"}, "on": true, "description": "Kind", "category": "doctors",
			"photo": nodetest.Object{"url": "https://x.example/2.png"}, "photos": []any{nodetest.Object{"url": "https://x.example/3.png"}}, "bookFromWebsite": true, "activated": true,
			"meta": nodetest.Object{"floor": 2}, "types": []any{kindID},
		}
		withProvider := nodetest.Object{"providerPhone": "+966500000002", "providerEmail": "sarah@example.com"}
		for field, value := range room {
			withProvider[field] = value
		}
		doctor := c.Staff(post, "/management/resources", withProvider).OK()
		doctorID := doctor.Str("result.id")
		for field, want := range room {
			assert.EqualValues(t, number(want), doctor.At("result."+field), field)
		}
		assert.Nil(t, doctor.At("result.providerPhone"))
		assert.Equal(t, false, doctor.At("result.paused"))
		nurse := c.NewResource(nodetest.Object{"name": "Nurse", "category": "nurses"}, kindID)
		off := c.Staff(put, "/management/resources/"+nurse, nodetest.Object{"on": false}).OK()
		assert.Equal(t, []any{kindID}, off.At("result.types"), "what is absent stays")
		assert.Equal(t, false, off.At("result.on"))
		assert.Equal(t, []string{doctorID, nurse}, c.Staff(get, "/management/resources", nil).OK().Pluck("result", "id"))
		assert.Equal(t, "Nurse", c.Staff(get, "/management/resources/"+nurse, nil).OK().Str("result.name"))
		provider := c.SignIn("+966500000002", true)
		assert.Equal(t, "member", provider.Str("user.kind"))
		assert.Equal(t, "provider", provider.Str("user.role"))
		assert.Equal(t, []any{doctorID}, provider.At("user.resourceIds"))
		mine := func(path string) []string {
			return h.Send(nodetest.Request{Method: get, Path: path, Token: provider.Str("accessToken")}).OK().Pluck("result", "id")
		}
		assert.Equal(t, []string{doctorID}, mine("/management/resources/mine"))
		assert.Equal(t, []string{doctorID}, mine("/management/resources/confirmedViewable"))
		assert.Equal(t, []string{doctorID}, mine("/management/resources/requestsViewable"))
		assert.NotEmpty(t, c.Staff(del, "/management/resources/"+nurse, nil).OK().Str("message"))

		// What customers see before signing in.
		public := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, App: id, Body: body, Lang: "ar"}).OK()
		}
		assert.Equal(t, id, public(get, "/availability/organization", nil).Str("result.id"))
		offered := public(post, "/availability/types", nil)
		assert.Equal(t, "فحص", offered.Str("result.0.name"))
		assert.Equal(t, 0, offered.Num("result.0.pendingCount"))
		assert.Nil(t, offered.At("pagination.nextPageToken"))
		assert.Equal(t, false, offered.At("pagination.hasMore"))
		assert.Empty(t, public(post, "/availability/types", nodetest.Object{"resourceFilters": nodetest.Object{"category": "nurses"}}).List("result"))
		assert.Len(t, public(post, "/availability/types", nodetest.Object{"type": kindID, "resourceFilters": nodetest.Object{"resource": doctorID}}).List("result"), 1)
		places := public(post, "/availability/resources", nodetest.Object{"type": kindID, "sortBy": "name", "sortByDirection": "desc"})
		assert.Equal(t, "د. سارة", places.Str("result.0.name"))
		assert.Nil(t, places.At("result.0.meta"), "for staff only")
		assert.Equal(t, "د. سارة", public(get, "/availability/resources/"+doctorID, nil).Str("result.name"))

		// A customer signs in, joins, looks and leaves.
		session := c.SignIn("+966 50 000 0003", false)
		assert.Equal(t, "customer", session.Str("user.kind"))
		assert.Equal(t, "+966500000003", session.Str("user.phone"))
		expires, err := time.Parse(time.RFC3339Nano, session.Str("accessTokenExpiresAt"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(15*time.Minute), expires, time.Minute)
		refresh := session.Str("refreshToken")
		again := h.Send(nodetest.Request{Method: get, Path: "/auth/token?refreshToken=" + url.QueryEscape(refresh)}).OK()
		token := h.Send(nodetest.Request{Method: post, Path: "/auth/token", Body: nodetest.Object{"refreshToken": again.Str("refreshToken")}}).OK().Str("accessToken")
		patient := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body})
		}
		profile := patient(put, "/customer/profile", nodetest.Object{"firstName": "Mona", "lastName": "Abdullah", "email": "Mona@Example.com", "data": nodetest.Object{"age": 30}}).OK()
		assert.Equal(t, "mona@example.com", profile.Str("result.email"))
		assert.Equal(t, "+966500000003", profile.Str("result.phone"), "what is absent stays")
		assert.Equal(t, "Mona", patient(get, "/customer/profile", nil).OK().Str("result.firstName"))
		joined := patient(put, "/customer/scheduling/new", nodetest.Joining(kindID, nodetest.Object{"note": "First visit", "bookingInfoCustomFields": nodetest.Object{"reason": "cough"}})).OK()
		booking := joined.Str("result.id")
		assert.Equal(t, "PENDING_ASSIGNMENT", joined.Str("result.status"))
		assert.Equal(t, "WAITING", joined.Str("result.stage"))
		assert.Equal(t, "C001", joined.Str("result.ticket"))
		assert.Equal(t, 1, joined.Num("result.queuePosition"))
		assert.Equal(t, 20, joined.Num("result.estimatedWaitMinutes"))
		assert.Equal(t, "cough", joined.Str("result.info.reason"))
		assert.Equal(t, "Checkup", joined.Str("result.display.type"))
		assert.Equal(t, "Waiting", joined.Str("result.display.stage"))
		assert.Nil(t, joined.At("result.customer"))
		assert.NotEmpty(t, joined.Str("result.ticketToken"))
		listed := patient(get, "/customer/bookings?status=PENDING_ASSIGNMENT&includes=customer,type,resource", nil).OK()
		assert.Equal(t, booking, listed.Str("result.0.id"))
		assert.Equal(t, 1, listed.Num("result.0.queuePosition"))
		assert.Equal(t, "Mona", listed.Str("result.0.customer.firstName"))
		assert.Equal(t, booking, patient(get, "/customer/bookings/"+booking, nil).OK().Str("result.id"))
		phone := patient(post, "/devices", nodetest.Object{"token": "a registration token", "platform": "ios", "lang": "ar"}).OK()
		assert.Equal(t, "ar", phone.Str("result.lang"))
		assert.NotEmpty(t, patient(del, "/devices", nodetest.Object{"token": "a registration token"}).OK().Str("message"))
		withTicket := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: joined.Str("result.ticketToken"), Body: body})
		}
		assert.Equal(t, 1, withTicket(get, "/customer/bookings/"+booking, nil).OK().Num("result.queuePosition"))
		left := withTicket(post, "/customer/bookings/cancel", nodetest.Object{"bookingId": booking, "reason": "Too long"}).OK()
		assert.Equal(t, "CANCELED", left.Str("result.status"))
		assert.Equal(t, "LEFT", left.Str("result.stage"))

		// The desk.
		desk := c.Join(kindID, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000003"}, "priority": 7})
		assert.Equal(t, "Mona", desk.Str("customer.firstName"))
		assert.Equal(t, nodetest.PublicURL+"/ticket/"+desk.Str("id")+"#"+desk.Str("ticketToken"), desk.Str("ticketUrl"))
		walkIn := c.Join(kindID, nodetest.Object{"customerIdentifier": nodetest.Object{"firstName": "Omar"}, "assignmentTimeout": 30})
		waiting := []string{desk.Str("id"), walkIn.Str("id")}
		assert.Equal(t, waiting, c.Staff(get, "/management/queue?resourceId="+doctorID, nil).OK().Pluck("result", "id"))
		assert.Equal(t, waiting, c.Staff(get, "/management/bookings/unassigned?resourceId="+doctorID, nil).OK().Pluck("result", "id"))
		assert.Equal(t, 2, c.Staff(get, "/management/types/"+kindID, nil).OK().Num("result.pendingCount"))
		assert.Equal(t, "CALLED", c.Act("assign", waiting[0], nodetest.Object{"resourceId": doctorID}).OK().Str("result.stage"))
		seen := c.Staff(get, "/management/bookings/"+waiting[0], nil).OK()
		assert.Equal(t, doctorID, seen.Str("result.resourceId"))
		assert.Equal(t, "Mona", seen.Str("result.customer.firstName"))
		assert.Equal(t, "Called", seen.Str("result.display.stage"))
		assert.Nil(t, seen.At("result.queuePosition"))
		h.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), waiting[0])
		assert.Equal(t, 1, c.Act("recall", waiting[0], nil).OK().Num("result.recallCount"))
		assert.Equal(t, "SERVING", c.Act("start", waiting[0], nil).OK().Str("result.stage"))
		assert.Equal(t, "DONE", c.Act("end", waiting[0], nil).OK().Str("result.stage"))
		assert.Equal(t, "SERVING", c.Act("undo", waiting[0], nil).OK().Str("result.stage"))
		assert.Equal(t, "DONE", c.Act("end", waiting[0], nil).OK().Str("result.stage"))
		assert.Equal(t, "HELD", c.Act("hold", waiting[1], nil).OK().Str("result.stage"))
		assert.Equal(t, "WAITING", c.Act("return", waiting[1], nil).OK().Str("result.stage"))
		c.Staff(post, "/management/queue/pause", nodetest.Object{"resourceId": doctorID}).OK()
		c.Staff(post, "/management/queue/resume", nodetest.Object{"resourceId": doctorID}).OK()
		assert.Equal(t, waiting[1], c.Next(doctorID).OK().Str("result.id"))
		assert.Equal(t, "NO_SHOW", c.Act("noShow", waiting[1], nil).OK().Str("result.stage"))
		gone := c.Join(kindID, nil).Str("id")
		assert.Equal(t, "CANCELED", c.Act("cancel", gone, nodetest.Object{"reason": "Asked to"}).OK().Str("result.status"))
		customerID := desk.Str("customerId")
		assert.Contains(t, c.Staff(get, "/management/customers", nil).OK().Pluck("result", "id"), customerID)
		assert.Equal(t, "Abdullah", c.Staff(get, "/management/customers/"+customerID, nil).OK().Str("result.lastName"))
		assert.Equal(t, "Wheelchair", c.Staff(put, "/management/customers/"+customerID, nodetest.Object{"note": "Wheelchair"}).OK().Str("result.note"))
		all := c.Staff(get, "/management/bookings?customerId="+customerID+"&orderDirection=asc&includes=customer", nil).OK()
		assert.Equal(t, []string{booking, waiting[0]}, all.Pluck("result", "id"))
		assert.Equal(t, "Mona", all.Str("result.0.customer.firstName"))
		assert.Len(t, c.Staff(get, "/management/bookings?dateType=createdAt&from="+today+"&to="+nodetest.Day(0), nil).OK().List("result"), 4)
		assert.Empty(t, c.Staff(get, "/management/bookings?to=2020-01-01T00:00:00Z", nil).OK().List("result"))
		assert.Equal(t, []string{waiting[1], waiting[0]}, c.Staff(get, "/management/bookings?status=CONFIRMED&resources="+doctorID, nil).OK().Pluck("result", "id"))

		twin := c.Join(kindID, nil).Str("customerId")
		merged := c.Staff(post, "/management/customers/merge", nodetest.Object{"customerId": customerID, "duplicateId": twin}).OK()
		assert.Equal(t, customerID, merged.Str("result.id"))

		// Displays.
		screen := c.Staff(post, "/management/displays", nodetest.Object{"name": "Hall", "resourceIds": []string{doctorID}}).OK()
		assert.Equal(t, nodetest.PublicURL+"/display/"+screen.Str("result.id")+"#"+screen.Str("result.token"), screen.Str("result.url"))
		assert.GreaterOrEqual(t, len(screen.Str("result.token")), 26)
		screens := c.Staff(get, "/management/displays", nil).OK()
		assert.Equal(t, []string{screen.Str("result.id")}, screens.Pluck("result", "id"))
		assert.NotContains(t, string(screens.Raw), screen.Str("result.token"))
		assert.NotEmpty(t, c.Staff(del, "/management/displays", nodetest.Object{"id": screen.Str("result.id")}).OK().Str("message"))

		// Everything held about a customer, and nothing any more.
		assert.Equal(t, "Mona", c.Staff(get, "/management/customers/"+customerID+"/export", nil).OK().Str("customer.firstName"))
		assert.Equal(t, "Mona", patient(get, "/customer/profile/export", nil).OK().Str("customer.firstName"))
		assert.NotEmpty(t, patient(del, "/customer/profile", nil).OK().Str("message"))
		assert.NotEmpty(t, c.Staff(del, "/management/customers/"+walkIn.Str("customerId"), nil).OK().Str("message"))

		// The audit.
		assert.Equal(t, screen.Str("result.id"), c.Staff(get, "/management/audit?action=deleteDisplay", nil).OK().Str("result.0.subject.id"))
		h.Send(nodetest.Request{Method: get, Path: "/management/account/audit", Token: nodetest.BootstrapKey}).OK()

		// Messages.
		assert.Contains(t, c.Staff(get, "/management/messages", nil).OK().Str("result.templates.otp.en.text"), "{{code}}")
		c.Staff(put, "/management/messages", nodetest.Object{"reminders": nodetest.Object{"afterAppointment": []string{"sms"}}}).OK()
		assert.Empty(t, c.Staff(get, "/management/messages/log", nil).OK().List("result"))

		assert.NotEmpty(t, h.Send(nodetest.Request{Method: post, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": refresh}}).OK().Str("message"))
		h.Send(nodetest.Request{Method: post, Path: "/auth/token", Body: nodetest.Object{"refreshToken": refresh}}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		// This house has a key, so it offers no set-up; cmd/nowserving tries the one that does.
		h.Send(nodetest.Request{Method: post, Path: "/auth/setup", Body: nodetest.Object{"token": "guessed"}}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)

		walkWebhooks(c)
		for _, op := range operations(h) {
			if op.path == "/auth/setup" {
				continue
			}
			pattern := regexp.MustCompile("^" + op.method + " " + regexp.MustCompile(`\{\w+\}`).ReplaceAllString(op.path, `[^/]+`) + "$")
			called := false
			for visited := range h.Visited {
				called = called || pattern.MatchString(visited)
			}
			assert.True(t, called, "%s %s was never called", op.method, op.path)
		}
		for _, secret := range []string{c.Key, token, refresh, "a registration token", screen.Str("result.token"), "+966500000003", "Mona", "mona@example.com", "Too long"} {
			assert.NotContains(t, h.Log.String(), secret, "the log holds what it must not")
		}
	})
}

// number makes whole numbers in an expected value what JSON makes of them.
func number(v any) any {
	if n, ok := v.(int); ok {
		return float64(n)
	}
	if m, ok := v.(nodetest.Object); ok {
		out := nodetest.Object{}
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
	h := nodetest.Start(t, nodetest.Embedded)
	for _, path := range []string{"/auth/otp/request", "/auth/otp/verify", "/auth/token", "/auth/logout"} {
		for method, op := range operationsAt(document(h), path) {
			assert.NotNil(t, nodetest.At(op, "responses.401"), "%s %s: a wrong code or token", method, path)
			assert.NotNil(t, nodetest.At(op, "responses.403"), "%s %s: another site", method, path)
		}
	}
	for _, role := range []models.Role{models.RoleOwner, models.RoleAdmin, models.RoleProvider, models.RoleReceptionist, models.RoleScreen} {
		assert.Contains(t, document(h).At("components.schemas.UserView.properties.role.enum"), string(role))
	}
}

// TestPagesShowEveryRowOnce walks each list by its tokens.
func TestPagesShowEveryRowOnce(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kinds := map[string]bool{}
		for i := range 7 {
			kinds[c.NewType(nodetest.Object{"name": fmt.Sprintf("Type %d", i)})] = true
		}
		var kind string
		for kind = range kinds {
			break
		}
		rooms, bookings, people, screens := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
		for i := range 7 {
			rooms[c.NewResource(nodetest.Object{"name": fmt.Sprintf("Room %d", i)}, kind)] = true
			b := c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": fmt.Sprintf("+9665000001%02d", i)}})
			bookings[b.Str("id")], people[b.Str("customerId")] = true, true
			screens[c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK().Str("result.id")] = true
		}
		room := ""
		for room = range rooms {
			break
		}
		walk := func(page func(token string) nodetest.Response) (ids []string, pages int) {
			token := ""
			for {
				a := page(token)
				a.OK()
				ids = append(ids, a.Pluck("result", "id")...)
				pages++
				assert.Equal(t, a.At("pagination.nextPageToken") != nil, a.At("pagination.hasMore"))
				if token = a.Str("pagination.nextPageToken"); token == "" {
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
				ids, pages := walk(func(token string) nodetest.Response {
					return c.Staff(http.MethodGet, fmt.Sprintf("%slimit=%d&nextPageToken=%s", path, limit, url.QueryEscape(token)), nil)
				})
				assert.Len(t, ids, len(want), path)
				for _, id := range ids {
					assert.True(t, want[id], path)
				}
				assert.Equal(t, (7+limit-1)/limit, pages, path)
			}
		}
		for path, want := range map[string]map[string]bool{"/availability/types": kinds, "/availability/resources": rooms} {
			for _, more := range []nodetest.Object{{}, {"sortBy": "name", "sortByDirection": "desc"}} {
				if path == "/availability/types" && len(more) > 0 {
					continue // types have one order
				}
				ids, pages := walk(func(token string) nodetest.Response {
					body := nodetest.Object{"limit": 3, "nextPageToken": token}
					for k, v := range more {
						body[k] = v
					}
					return h.Send(nodetest.Request{Method: http.MethodPost, Path: path, App: c.ID, Body: body})
				})
				assert.Len(t, ids, len(want))
				assert.Equal(t, 3, pages)
				for _, id := range ids {
					assert.True(t, want[id], path)
				}
			}
		}
		patient := c.Patient("+966500000100")
		ids, _ := walk(func(token string) nodetest.Response {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings?limit=1&nextPageToken=" + token, Token: patient})
		})
		assert.Len(t, ids, 1)
		assert.Len(t, c.Staff(http.MethodGet, "/management/types", nil).OK().List("result"), 7, "10 by default")
	})
}

// walkWebhooks calls every route of webhooks with success.
func walkWebhooks(c *nodetest.Clinic) {
	c.T.Helper()
	const nowhere = "https://receiver.invalid/hook"
	body := nodetest.Object{"trigger": "bookingUnassigned", "url": nowhere}
	id := c.Hook("bookingUnassigned", nowhere, nil)
	assert.Contains(c.T, c.Staff(http.MethodGet, "/management/webhooks", nil).OK().Pluck("result", "id"), id)
	assert.NotEmpty(c.T, c.Staff(http.MethodPost, "/management/webhooks/rotate", body).OK().Str("webhook.secret"))
	assert.Equal(c.T, "bookingUnassigned", c.Staff(http.MethodPost, "/management/webhooks/sample", nodetest.Object{"trigger": "bookingUnassigned"}).OK().Str("0.trigger"))
	c.Join(c.NewType(nodetest.Object{"name": "Told of"}), nil)
	log := c.Settled("webhookId="+id, func(a nodetest.Response) bool { return len(a.List("result")) == 1 })
	delivery := log.Str("result.0.id")
	assert.Equal(c.T, delivery, c.Staff(http.MethodPost, "/management/webhooks/deliveries/"+delivery+"/replay", nil).OK().Str("result.id"))
	today := time.Now().UTC().Format(time.DateOnly)
	assert.Equal(c.T, 0, c.Staff(http.MethodPost, "/management/webhooks/deliveries/replay", nodetest.Object{"from": today, "to": today}).OK().Num("result.replayed"))
	assert.Equal(c.T, "success", c.Staff(http.MethodDelete, "/management/webhooks", body).OK().Str("result"))
}
