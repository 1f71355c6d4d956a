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

// Methods of requests.
const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete

// routeWalk is what the areas of TestEveryRoute have made so far.
type routeWalk struct {
	*nodetest.Clinic
	today              string
	typeID, resourceID string

	token, refresh string   // of the customer
	left, ticket   string   // the booking that the customer leaves, and its ticket token
	waiting        []string // the bookings of the customer and of a walk-in
	customerID     string
	walkInID       string // the customer record of the walk-in

	displayID, displayToken string

	appointment string // whose ticket token is ticket
	feedToken   string
}

// TestEveryRoute walks through the areas of the API as a clinic would, and then makes
// sure that no route was forgotten. An area uses what those before it made.
func TestEveryRoute(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		defer func() { h.T = t }()
		w := &routeWalk{Clinic: &nodetest.Clinic{Node: h}, today: nodetest.Day(0)}
		for _, area := range []struct {
			name string
			walk func()
		}{
			{"organizations", w.organizations},
			{"API keys", w.keys},
			{"members", w.members},
			{"types", w.types},
			{"resources", w.resources},
			{"calendar", w.calendar},
			{"website", w.website},
			{"custom fields", w.customFields},
			{"availability", w.availability},
			{"sign-in", w.signIn},
			{"customer", w.customer},
			{"devices", w.devices},
			{"ticket", w.leaveByTicket},
			{"queue", w.queue},
			{"bookings", w.bookings},
			{"customers", w.customers},
			{"displays", w.displays},
			{"appointments", w.appointments},
			{"calendar files", w.calendarFiles},
			{"privacy", w.privacy},
			{"audit", w.audit},
			{"messages", w.messages},
			{"sign-out", w.signOut},
			{"set-up", w.setUp},
			{"webhooks", w.webhooks},
			{"every operation was called", w.calledEvery},
			{"the log holds no secret", w.loggedNoSecret},
		} {
			if !t.Run(area.name, func(t *testing.T) { h.T = t; area.walk() }) {
				return
			}
		}
	})
}

func (w *routeWalk) organizations() {
	made := w.Send(nodetest.Request{Method: post, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{
		"name": "Al Noor", "timezone": "Asia/Riyadh", "businessTypeId": "clinic", "businessCustomConfig": nodetest.Object{"floors": 2},
	}}).OK()
	w.ID = made.Str("result.id")
	assert.Equal(w.T, "clinic", made.Str("result.businessTypeId"))
	assert.Equal(w.T, 2, made.Num("result.businessCustomConfig.floors"))
	assert.Contains(w.T, w.Send(nodetest.Request{Method: get, Path: "/management/organizations", Token: nodetest.BootstrapKey}).OK().Pluck("result", "id"), w.ID)
	assert.Equal(w.T, "Asia/Riyadh", w.Send(nodetest.Request{Method: get, Path: "/management/organizations/" + w.ID, Token: nodetest.BootstrapKey}).OK().Str("result.timezone"))
	empty := w.Send(nodetest.Request{Method: post, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "Spare", "timezone": "UTC"}}).OK().Str("result.id")
	assert.Equal(w.T, "Moved", w.Send(nodetest.Request{Method: put, Path: "/management/organizations/" + empty, Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "Moved"}}).OK().Str("result.name"))
	assert.Equal(w.T, true, w.Send(nodetest.Request{Method: del, Path: "/management/organizations/" + empty, Token: nodetest.BootstrapKey}).OK().At("result.isDeleted"))
}

func (w *routeWalk) keys() {
	key := w.Send(nodetest.Request{Method: post, Path: "/management/apiKeys", Token: nodetest.BootstrapKey, App: w.ID, Body: nodetest.Object{"name": "desk"}}).OK()
	w.Key = key.Str("result.key")
	w.Staff(post, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK()
	keys := w.Staff(get, "/management/apiKeys", nil).OK()
	assert.Equal(w.T, []string{"desk", "spare"}, keys.Pluck("result", "name"))
	assert.NotContains(w.T, string(keys.Raw), w.Key)
	w.Staff(post, "/management/apiKeys/rotate", nodetest.Object{"name": "spare"}).OK()
	assert.Empty(w.T, w.Staff(del, "/management/apiKeys", nodetest.Object{"name": "spare"}).OK().Members("result"))
	account := func(method, path string, body any) nodetest.Response {
		return w.Send(nodetest.Request{Method: method, Path: "/management/account/apiKeys" + path, Token: nodetest.BootstrapKey, Body: body}).OK()
	}
	account(post, "", nodetest.Object{"name": "spare"})
	account(post, "/rotate", nodetest.Object{"name": "spare"})
	assert.Equal(w.T, []string{"spare", "spare"}, account(get, "", nil).Pluck("result", "name"))
	account(del, "", nodetest.Object{"name": "spare"})
	assert.Equal(w.T, "Al Noor", w.Send(nodetest.Request{Method: get, Path: "/management/organizations", Header: map[string]string{"X-API-KEY": w.Key}}).OK().Str("result.0.name"))
}

func (w *routeWalk) members() {
	nurse := w.Staff(post, "/management/members", nodetest.Object{"phone": "+966500000009", "role": "receptionist"}).OK().Str("result.id")
	assert.Equal(w.T, []string{nurse}, w.Staff(get, "/management/members", nil).OK().Pluck("result", "id"))
	assert.Equal(w.T, "Noura", w.Staff(put, "/management/members/"+nurse, nodetest.Object{"firstName": "Noura"}).OK().Str("result.firstName"))
	assert.NotEmpty(w.T, w.Staff(del, "/management/members", nodetest.Object{"id": nurse}).OK().Str("message"))
}

// types checks that the fields come back, and that a change keeps those it omits.
func (w *routeWalk) types() {
	body := nodetest.Object{
		"name": "Checkup", "name_translations": nodetest.Object{"en": "Checkup", "ar": "فحص"}, "description": "All of it", "description_translations": nodetest.Object{"ar": "كله"},
		"minutes": 15, "leaveMinutesBefore": 5, "leaveMinutesAfter": 2.5, "category": "general", "color": "#00ff00", "on": true, "price": "150.00",
		"oldPrice": "200.00", "priceIncrease": "10", "priceIncreaseDays": 3, "depositAmount": "50.00", "depositPercentage": "25",
		"schedule": nodetest.Object{"days": []any{"sun"}}, "timeOptions": nodetest.Object{"showOclock": true}, "photos": []any{nodetest.Object{"url": "https://x.example/1.png"}},
		"autoConfirm": true, "paymentMethods": []any{"manual"}, "bookFromWebsite": true, "prefix": "C",
	}
	kind := w.Staff(post, "/management/types", body).OK()
	w.typeID = kind.Str("result.id")
	for field, want := range body {
		assert.EqualValues(w.T, number(want), kind.At("result."+field), field)
	}
	changed := w.Staff(put, "/management/types/"+w.typeID, nodetest.Object{"minutes": 20, "leaveMinutesAfter": 3}).OK()
	body["minutes"], body["leaveMinutesAfter"] = 20, 3
	for field, want := range body {
		assert.EqualValues(w.T, number(want), changed.At("result."+field), field)
	}
	arabic := w.Send(nodetest.Request{Method: get, Path: "/management/types/" + w.typeID, Token: w.Key, Lang: "ar"}).OK()
	assert.Equal(w.T, "فحص", arabic.Str("result.name"))
	assert.Equal(w.T, "كله", arabic.Str("result.description"))
	spare := w.NewType(nodetest.Object{"name": "Spare", "prefix": "Z"})
	assert.Equal(w.T, []string{w.typeID, spare}, w.Staff(get, "/management/types", nil).OK().Pluck("result", "id"))
	assert.NotEmpty(w.T, w.Staff(del, "/management/types/"+spare, nil).OK().Str("message"))
	assert.Equal(w.T, []string{w.typeID}, w.Staff(get, "/management/types", nil).OK().Pluck("result", "id"))
}

func (w *routeWalk) resources() {
	room := nodetest.Object{
		"name": "Dr. Sarah", "name_translations": nodetest.Object{"en": "Dr. Sarah", "ar": "د. سارة"}, "on": true, "description": "Kind", "category": "doctors",
		"photo": nodetest.Object{"url": "https://x.example/2.png"}, "photos": []any{nodetest.Object{"url": "https://x.example/3.png"}}, "bookFromWebsite": true, "activated": true,
		"meta": nodetest.Object{"floor": 2}, "types": []any{w.typeID},
	}
	withProvider := nodetest.Object{"providerPhone": "+966500000002", "providerEmail": "sarah@example.com"}
	for field, value := range room {
		withProvider[field] = value
	}
	doctor := w.Staff(post, "/management/resources", withProvider).OK()
	w.resourceID = doctor.Str("result.id")
	for field, want := range room {
		assert.EqualValues(w.T, number(want), doctor.At("result."+field), field)
	}
	assert.Nil(w.T, doctor.At("result.providerPhone"))
	assert.Equal(w.T, false, doctor.At("result.paused"))
	nurse := w.NewResource(nodetest.Object{"name": "Nurse", "category": "nurses"}, w.typeID)
	off := w.Staff(put, "/management/resources/"+nurse, nodetest.Object{"on": false}).OK()
	assert.Equal(w.T, []any{w.typeID}, off.At("result.types"), "omitted fields are unchanged")
	assert.Equal(w.T, false, off.At("result.on"))
	assert.Equal(w.T, []string{w.resourceID, nurse}, w.Staff(get, "/management/resources", nil).OK().Pluck("result", "id"))
	assert.Equal(w.T, "Nurse", w.Staff(get, "/management/resources/"+nurse, nil).OK().Str("result.name"))
	provider := w.SignIn("+966500000002", true)
	assert.Equal(w.T, "member", provider.Str("user.kind"))
	assert.Equal(w.T, "provider", provider.Str("user.role"))
	assert.Equal(w.T, []any{w.resourceID}, provider.At("user.resourceIds"))
	mine := func(path string) []string {
		return w.Send(nodetest.Request{Method: get, Path: path, Token: provider.Str("accessToken")}).OK().Pluck("result", "id")
	}
	assert.Equal(w.T, []string{w.resourceID}, mine("/management/resources/mine"))
	assert.Equal(w.T, []string{w.resourceID}, mine("/management/resources/confirmedViewable"))
	assert.Equal(w.T, []string{w.resourceID}, mine("/management/resources/requestsViewable"))
	assert.NotEmpty(w.T, w.Staff(del, "/management/resources/"+nurse, nil).OK().Str("message"))
}

// website changes the draft and publishes it.
func (w *routeWalk) website() {
	assert.Equal(w.T, "Al Noor", w.Staff(get, "/management/website", nil).OK().Str("result.displayName"))
	w.Staff(put, "/management/website?version=draft", nodetest.Object{"displayName": "Al Noor Clinic"}).OK()
	assert.Equal(w.T, "Al Noor Clinic", w.Staff(post, "/management/website/publish", nil).OK().Str("result.displayName"))
	shown := w.Send(nodetest.Request{Method: get, Path: "/website", App: w.ID}).OK()
	assert.Equal(w.T, "Al Noor Clinic", shown.Str("result.displayName"))
	found := w.Send(nodetest.Request{Method: get, Path: "/website/find?url=" + url.QueryEscape(nodetest.PublicURL+"/join/"+w.ID)}).OK()
	assert.Equal(w.T, shown.At("result"), found.At("result"))
}

// availability is what customers see before they sign in.
func (w *routeWalk) availability() {
	public := func(method, path string, body any) nodetest.Response {
		return w.Send(nodetest.Request{Method: method, Path: path, App: w.ID, Body: body, Lang: "ar"}).OK()
	}
	assert.Equal(w.T, w.ID, public(get, "/availability/organization", nil).Str("result.id"))
	offered := public(post, "/availability/types", nil)
	assert.Equal(w.T, "فحص", offered.Str("result.0.name"))
	assert.Equal(w.T, 0, offered.Num("result.0.pendingCount"))
	assert.Nil(w.T, offered.At("pagination.nextPageToken"))
	assert.Equal(w.T, false, offered.At("pagination.hasMore"))
	assert.Empty(w.T, public(post, "/availability/types", nodetest.Object{"resourceFilters": nodetest.Object{"category": "nurses"}}).List("result"))
	assert.Len(w.T, public(post, "/availability/types", nodetest.Object{"type": w.typeID, "resourceFilters": nodetest.Object{"resource": w.resourceID}}).List("result"), 1)
	places := public(post, "/availability/resources", nodetest.Object{"type": w.typeID, "sortBy": "name", "sortByDirection": "desc"})
	assert.Equal(w.T, "د. سارة", places.Str("result.0.name"))
	assert.Nil(w.T, places.At("result.0.meta"), "for staff only")
	assert.Equal(w.T, w.resourceID, public(post, "/availability/resourceCategories", nil).Str("result.0.resources.0.id"))
	assert.Equal(w.T, "د. سارة", public(get, "/availability/resources/"+w.resourceID, nil).Str("result.name"))
}

func (w *routeWalk) signIn() {
	session := w.SignIn("+966 50 000 0003", false)
	assert.Equal(w.T, "customer", session.Str("user.kind"))
	assert.Equal(w.T, "+966500000003", session.Str("user.phone"))
	expires, err := time.Parse(time.RFC3339Nano, session.Str("accessTokenExpiresAt"))
	require.NoError(w.T, err)
	assert.WithinDuration(w.T, time.Now().Add(15*time.Minute), expires, time.Minute)
	w.refresh = session.Str("refreshToken")
	again := w.Send(nodetest.Request{Method: get, Path: "/auth/token?refreshToken=" + url.QueryEscape(w.refresh)}).OK()
	w.token = w.Send(nodetest.Request{Method: post, Path: "/auth/token", Body: nodetest.Object{"refreshToken": again.Str("refreshToken")}}).OK().Str("accessToken")
}

// asCustomer makes a request with the customer's access token.
func (w *routeWalk) asCustomer(method, path string, body any) nodetest.Response {
	w.T.Helper()
	return w.Send(nodetest.Request{Method: method, Path: path, Token: w.token, Body: body})
}

func (w *routeWalk) customer() {
	profile := w.asCustomer(put, "/customer/profile", nodetest.Object{"firstName": "Mona", "lastName": "Abdullah", "email": "Mona@Example.com", "data": nodetest.Object{"age": 30}}).OK()
	assert.Equal(w.T, "mona@example.com", profile.Str("result.email"))
	assert.Equal(w.T, "+966500000003", profile.Str("result.phone"), "omitted fields are unchanged")
	assert.Equal(w.T, "Mona", w.asCustomer(get, "/customer/profile", nil).OK().Str("result.firstName"))
	info := nodetest.Object{"reason": "cough", "letter": upload("application/pdf", "letter.pdf", smallPDF)}
	joined := w.asCustomer(put, "/customer/scheduling/new", nodetest.Joining(w.typeID, nodetest.Object{"note": "First visit", "bookingInfoCustomFields": info})).OK()
	assert.Equal(w.T, smallPDF, string(download(w.Node, joined.At("result.info.letter.data"), nil).OK().Raw))
	w.left, w.ticket = joined.Str("result.id"), joined.Str("result.ticketToken")
	assert.Equal(w.T, "PENDING_ASSIGNMENT", joined.Str("result.status"))
	assert.Equal(w.T, "WAITING", joined.Str("result.stage"))
	assert.Equal(w.T, "C001", joined.Str("result.ticket"))
	assert.Equal(w.T, 1, joined.Num("result.queuePosition"))
	assert.Equal(w.T, 20, joined.Num("result.estimatedWaitMinutes"))
	assert.Equal(w.T, "cough", joined.Str("result.info.reason"))
	assert.Equal(w.T, "Checkup", joined.Str("result.display.type"))
	assert.Equal(w.T, "Waiting", joined.Str("result.display.stage"))
	assert.Nil(w.T, joined.At("result.customer"))
	assert.NotEmpty(w.T, w.ticket)
	listed := w.asCustomer(get, "/customer/bookings?status=PENDING_ASSIGNMENT&includes=customer,type,resource", nil).OK()
	assert.Equal(w.T, w.left, listed.Str("result.0.id"))
	assert.Equal(w.T, 1, listed.Num("result.0.queuePosition"))
	assert.Equal(w.T, "Mona", listed.Str("result.0.customer.firstName"))
	assert.Equal(w.T, w.left, w.asCustomer(get, "/customer/bookings/"+w.left, nil).OK().Str("result.id"))
}

func (w *routeWalk) devices() {
	phone := w.asCustomer(post, "/devices", nodetest.Object{"token": "a registration token", "platform": "ios", "lang": "ar"}).OK()
	assert.Equal(w.T, "ar", phone.Str("result.lang"))
	assert.NotEmpty(w.T, w.asCustomer(del, "/devices", nodetest.Object{"token": "a registration token"}).OK().Str("message"))
}

func (w *routeWalk) leaveByTicket() {
	withTicket := func(method, path string, body any) nodetest.Response {
		return w.Send(nodetest.Request{Method: method, Path: path, Token: w.ticket, Body: body})
	}
	assert.Equal(w.T, 1, withTicket(get, "/customer/bookings/"+w.left, nil).OK().Num("result.queuePosition"))
	left := withTicket(post, "/customer/bookings/cancel", nodetest.Object{"bookingId": w.left, "reason": "Too long"}).OK()
	assert.Equal(w.T, "CANCELED", left.Str("result.status"))
	assert.Equal(w.T, "LEFT", left.Str("result.stage"))
}

// queue adds two patients at the desk, who then wait.
func (w *routeWalk) queue() {
	desk := w.Join(w.typeID, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000003"}, "priority": 7})
	assert.Equal(w.T, "Mona", desk.Str("customer.firstName"))
	assert.Equal(w.T, nodetest.PublicURL+"/ticket/"+desk.Str("id")+"#"+desk.Str("ticketToken"), desk.Str("ticketUrl"))
	walkIn := w.Join(w.typeID, nodetest.Object{"customerIdentifier": nodetest.Object{"firstName": "Omar"}, "assignmentTimeout": 30})
	w.waiting = []string{desk.Str("id"), walkIn.Str("id")}
	w.customerID, w.walkInID = desk.Str("customerId"), walkIn.Str("customerId")
	assert.Equal(w.T, w.waiting, w.Staff(get, "/management/queue?resourceId="+w.resourceID, nil).OK().Pluck("result", "id"))
	assert.Equal(w.T, w.waiting, w.Staff(get, "/management/bookings/unassigned?resourceId="+w.resourceID, nil).OK().Pluck("result", "id"))
	assert.Equal(w.T, 2, w.Staff(get, "/management/types/"+w.typeID, nil).OK().Num("result.pendingCount"))
}

// bookings takes the two patients through every step of a visit.
func (w *routeWalk) bookings() {
	assert.Equal(w.T, "CALLED", w.Act("assign", w.waiting[0], nodetest.Object{"resourceId": w.resourceID}).OK().Str("result.stage"))
	seen := w.Staff(get, "/management/bookings/"+w.waiting[0], nil).OK()
	assert.Equal(w.T, w.resourceID, seen.Str("result.resourceId"))
	assert.Equal(w.T, "Mona", seen.Str("result.customer.firstName"))
	assert.Equal(w.T, "Called", seen.Str("result.display.stage"))
	assert.Nil(w.T, seen.At("result.queuePosition"))
	w.Exec("UPDATE bookings SET last_called_at = ? WHERE id = ?", time.Now().UTC().Add(-2*time.Minute), w.waiting[0])
	assert.Equal(w.T, 1, w.Act("recall", w.waiting[0], nil).OK().Num("result.recallCount"))
	assert.Equal(w.T, "SERVING", w.Act("start", w.waiting[0], nil).OK().Str("result.stage"))
	assert.Equal(w.T, "DONE", w.Act("end", w.waiting[0], nil).OK().Str("result.stage"))
	assert.Equal(w.T, "SERVING", w.Act("undo", w.waiting[0], nil).OK().Str("result.stage"))
	assert.Equal(w.T, "DONE", w.Act("end", w.waiting[0], nil).OK().Str("result.stage"))
	assert.Equal(w.T, "HELD", w.Act("hold", w.waiting[1], nil).OK().Str("result.stage"))
	assert.Equal(w.T, "WAITING", w.Act("return", w.waiting[1], nil).OK().Str("result.stage"))
	w.Staff(post, "/management/queue/pause", nodetest.Object{"resourceId": w.resourceID}).OK()
	w.Staff(post, "/management/queue/resume", nodetest.Object{"resourceId": w.resourceID}).OK()
	assert.Equal(w.T, w.waiting[1], w.Next(w.resourceID).OK().Str("result.id"))
	assert.Equal(w.T, "NO_SHOW", w.Act("noShow", w.waiting[1], nil).OK().Str("result.stage"))
	gone := w.Join(w.typeID, nil).Str("id")
	assert.Equal(w.T, "CANCELED", w.Act("cancel", gone, nodetest.Object{"reason": "Asked to"}).OK().Str("result.status"))
}

func (w *routeWalk) calendar() {
	weekly := nodetest.Object{"weekdays": []int{0, 1, 2, 3, 4, 5, 6}, "slots": []any{nodetest.Object{"from": 900, "to": 1200}}}
	assert.Equal(w.T, 1700, w.Staff(get, "/management/timeRules", nil).OK().Num("result.rules.0.slots.0.to"))
	assert.Equal(w.T, 90, w.Staff(put, "/management/timeRules", nodetest.Object{"depthOfDays": 90}).OK().Num("result.depthOfDays"))
	own := w.Staff(put, "/management/timeRules/"+w.resourceID, nodetest.Object{"rules": []any{weekly}}).OK()
	assert.Equal(w.T, false, own.At("result.inherited"))
	assert.Equal(w.T, own.At("result"), w.Staff(get, "/management/timeRules/"+w.resourceID, nil).OK().At("result"))
	holiday := nodetest.Object{"rules": []any{nodetest.Object{"name": "New year", "from": "2026-01-01", "rrule": "FREQ=YEARLY"}}}
	w.Staff(put, "/management/offRules", holiday).OK()
	assert.Len(w.T, w.Staff(get, "/management/offRules", nil).OK().List("result.rules"), 1)
	assert.Equal(w.T, true, w.Staff(get, "/management/offRules/"+w.resourceID, nil).OK().At("result.inherited"))
	assert.Equal(w.T, false, w.Staff(put, "/management/offRules/"+w.resourceID, holiday).OK().At("result.inherited"))
}

func (w *routeWalk) calendarFiles() {
	made := w.Staff(post, "/management/resources/"+w.resourceID+"/calendarFeed", nil).OK().Str("result.url")
	feed, ours := strings.CutPrefix(made, nodetest.PublicURL)
	require.True(w.T, ours, made)
	w.feedToken = strings.TrimSuffix(strings.TrimPrefix(feed, "/calendar/"), ".ics")
	assert.Contains(w.T, string(w.Send(nodetest.Request{Method: get, Path: feed}).OK().Raw), w.appointment)
	assert.Contains(w.T, string(w.Send(nodetest.Request{Method: get, Path: "/customer/bookings/" + w.appointment + ".ics?token=" + w.ticket}).OK().Raw), w.appointment)
	assert.NotEmpty(w.T, w.Staff(del, "/management/resources/"+w.resourceID+"/calendarFeed", nil).OK().Str("message"))
}

// customFields defines fields and removes them again.
func (w *routeWalk) customFields() {
	lists := func(path string) []string {
		return w.Send(nodetest.Request{Method: get, Path: "/customFields/" + path, App: w.ID}).OK().Pluck("result", "id")
	}
	define(w.Clinic, "booking", public("guests", "number", nodetest.Object{"minutes": 5}), public("reason", "text", nil)).OK()
	define(w.Clinic, "customer", public("age", "number", nil)).OK()
	assert.Equal(w.T, []string{"guests", "reason"}, w.Staff(get, "/management/customFields/booking", nil).OK().Pluck("result", "id"))
	assert.Equal(w.T, []string{"guests"}, lists("timeAdjusters?type="+w.typeID))
	assert.Equal(w.T, []string{"reason"}, lists("bookingInfo?type="+w.typeID))
	assert.Empty(w.T, lists("resourceFilters"))
	assert.Contains(w.T, lists("customer"), "age")
	define(w.Clinic, "booking").OK()
	define(w.Clinic, "customer").OK()
	assert.Len(w.T, w.Staff(get, "/management/customFields/customer", nil).OK().List("result"), 4)
}

func (w *routeWalk) appointments() {
	free := w.Send(nodetest.Request{Method: post, Path: "/availability/times", App: w.ID, Body: nodetest.Object{"type": w.typeID, "from": nodetest.Day(2), "limit": 1}}).OK()
	assert.Equal(w.T, nodetest.Day(2), free.Str("result.0.date"))
	assert.Equal(w.T, 900, free.Num("result.0.times.0.time"))
	w.Staff(put, "/management/types/"+w.typeID, nodetest.Object{"autoConfirm": false}).OK()
	request := func(military int) string {
		return w.asCustomer(put, "/customer/scheduling/new", nodetest.Appointment(w.typeID, nodetest.Day(2), military, nil)).OK().Str("result.id")
	}
	moved := w.asCustomer(post, "/customer/bookings/reschedule", nodetest.Object{"bookingId": request(900), "date": nodetest.Day(2), "time": 930}).OK()
	assert.Equal(w.T, "CONFIRMED", w.Act("approve", moved.Str("result.id"), nil).OK().Str("result.status"))
	assert.Equal(w.T, "REJECTED", w.Act("reject", request(1000), nodetest.Object{"reason": "Away"}).OK().Str("result.status"))
	reserved := w.Staff(put, "/management/scheduling/temporary", nodetest.Appointment(w.typeID, nodetest.Day(2), 1100, nil)).OK()
	assert.NotNil(w.T, reserved.At("reservedUntil"))
	confirmed := w.Staff(post, "/management/scheduling/confirm", nodetest.Object{"bookingId": reserved.Str("id")}).OK()
	assert.Nil(w.T, confirmed.At("result.reservedUntil"))
	w.appointment, w.ticket = reserved.Str("id"), reserved.Str("ticketToken")
}

func (w *routeWalk) customers() {
	assert.Contains(w.T, w.Staff(get, "/management/customers", nil).OK().Pluck("result", "id"), w.customerID)
	assert.Equal(w.T, "Abdullah", w.Staff(get, "/management/customers/"+w.customerID, nil).OK().Str("result.lastName"))
	assert.Equal(w.T, "Wheelchair", w.Staff(put, "/management/customers/"+w.customerID, nodetest.Object{"note": "Wheelchair"}).OK().Str("result.note"))
	all := w.Staff(get, "/management/bookings?customerId="+w.customerID+"&orderDirection=asc&includes=customer", nil).OK()
	assert.Equal(w.T, []string{w.left, w.waiting[0]}, all.Pluck("result", "id"))
	assert.Equal(w.T, "Mona", all.Str("result.0.customer.firstName"))
	assert.Len(w.T, w.Staff(get, "/management/bookings?dateType=createdAt&from="+w.today+"&to="+nodetest.Day(0), nil).OK().List("result"), 4)
	assert.Empty(w.T, w.Staff(get, "/management/bookings?to=2020-01-01T00:00:00Z", nil).OK().List("result"))
	assert.Equal(w.T, []string{w.waiting[1], w.waiting[0]}, w.Staff(get, "/management/bookings?status=CONFIRMED&resources="+w.resourceID, nil).OK().Pluck("result", "id"))
	twin := w.Join(w.typeID, nil).Str("customerId")
	merged := w.Staff(post, "/management/customers/merge", nodetest.Object{"customerId": w.customerID, "duplicateId": twin}).OK()
	assert.Equal(w.T, w.customerID, merged.Str("result.id"))
}

func (w *routeWalk) displays() {
	screen := w.Staff(post, "/management/displays", nodetest.Object{"name": "Hall", "resourceIds": []string{w.resourceID}}).OK()
	w.displayID, w.displayToken = screen.Str("result.id"), screen.Str("result.token")
	assert.Equal(w.T, nodetest.PublicURL+"/display/"+w.displayID+"#"+w.displayToken, screen.Str("result.url"))
	assert.GreaterOrEqual(w.T, len(w.displayToken), 26)
	screens := w.Staff(get, "/management/displays", nil).OK()
	assert.Equal(w.T, []string{w.displayID}, screens.Pluck("result", "id"))
	assert.NotContains(w.T, string(screens.Raw), w.displayToken)
	assert.NotEmpty(w.T, w.Staff(del, "/management/displays", nodetest.Object{"id": w.displayID}).OK().Str("message"))
}

// privacy exports a customer and erases them.
func (w *routeWalk) privacy() {
	assert.Equal(w.T, "Mona", w.Staff(get, "/management/customers/"+w.customerID+"/export", nil).OK().Str("customer.firstName"))
	assert.Equal(w.T, "Mona", w.asCustomer(get, "/customer/profile/export", nil).OK().Str("customer.firstName"))
	assert.NotEmpty(w.T, w.asCustomer(del, "/customer/profile", nil).OK().Str("message"))
	assert.NotEmpty(w.T, w.Staff(del, "/management/customers/"+w.walkInID, nil).OK().Str("message"))
}

func (w *routeWalk) audit() {
	assert.Equal(w.T, w.displayID, w.Staff(get, "/management/audit?action=deleteDisplay", nil).OK().Str("result.0.subject.id"))
	w.Send(nodetest.Request{Method: get, Path: "/management/account/audit", Token: nodetest.BootstrapKey}).OK()
}

func (w *routeWalk) messages() {
	assert.Contains(w.T, w.Staff(get, "/management/messages", nil).OK().Str("result.templates.otp.en.text"), "{{code}}")
	w.Staff(put, "/management/messages", nodetest.Object{"reminders": nodetest.Object{"afterAppointment": []string{"sms"}}}).OK()
	assert.Empty(w.T, w.Staff(get, "/management/messages/log", nil).OK().List("result"))
}

func (w *routeWalk) signOut() {
	assert.NotEmpty(w.T, w.Send(nodetest.Request{Method: post, Path: "/auth/logout", Body: nodetest.Object{"refreshToken": w.refresh}}).OK().Str("message"))
	w.Send(nodetest.Request{Method: post, Path: "/auth/token", Body: nodetest.Object{"refreshToken": w.refresh}}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
}

// setUp is refused here, because the node has a key. cmd/nowserving tests the first
// start, which has none.
func (w *routeWalk) setUp() {
	w.Send(nodetest.Request{Method: post, Path: "/auth/setup", Body: nodetest.Object{"token": "guessed"}}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
}

func (w *routeWalk) webhooks() {
	const nowhere = "https://receiver.invalid/hook"
	body := nodetest.Object{"trigger": "bookingUnassigned", "url": nowhere}
	id := w.Hook("bookingUnassigned", nowhere, nil)
	assert.Contains(w.T, w.Staff(get, "/management/webhooks", nil).OK().Pluck("result", "id"), id)
	assert.NotEmpty(w.T, w.Staff(post, "/management/webhooks/rotate", body).OK().Str("webhook.secret"))
	assert.Equal(w.T, "bookingUnassigned", w.Staff(post, "/management/webhooks/sample", nodetest.Object{"trigger": "bookingUnassigned"}).OK().Str("0.trigger"))
	w.Join(w.NewType(nodetest.Object{"name": "Subscribed"}), nil)
	log := w.Settled("webhookId="+id, func(a nodetest.Response) bool { return len(a.List("result")) == 1 })
	delivery := log.Str("result.0.id")
	assert.Equal(w.T, delivery, w.Staff(post, "/management/webhooks/deliveries/"+delivery+"/replay", nil).OK().Str("result.id"))
	today := time.Now().UTC().Format(time.DateOnly)
	assert.Equal(w.T, 0, w.Staff(post, "/management/webhooks/deliveries/replay", nodetest.Object{"from": today, "to": today}).OK().Num("result.replayed"))
	assert.Equal(w.T, "success", w.Staff(del, "/management/webhooks", body).OK().Str("result"))
}

func (w *routeWalk) calledEvery() {
	for _, op := range operations(w.Node) {
		if op.path == "/auth/setup" {
			continue
		}
		pattern := regexp.MustCompile("^" + op.method + " " + regexp.MustCompile(`\{\w+\}`).ReplaceAllString(op.path, `[^/]+`) + "$")
		called := false
		for visited := range w.Visited {
			called = called || pattern.MatchString(visited)
		}
		assert.True(w.T, called, "%s %s was never called", op.method, op.path)
	}
}

func (w *routeWalk) loggedNoSecret() {
	for _, secret := range []string{w.Key, w.token, w.refresh, w.ticket, w.feedToken, "a registration token", w.displayToken, "+966500000003", "Mona", "mona@example.com", "Too long"} {
		assert.NotContains(w.T, w.Log.String(), secret, "the log holds a secret")
	}
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
