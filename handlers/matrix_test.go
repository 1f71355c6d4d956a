package handlers_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// callers is a set of kinds of callers.
type callers uint16

const (
	asAccountKey callers = 1 << iota
	asReadKey            // an organization's, with the scope read
	asWriteKey
	asAdminKey
	asOwner
	asAdmin
	asReceptionist
	asProvider
	asScreen // a member with that role
	asCustomer
	asTicket
	asDisplay
	asNobody

	readKeys  = asAccountKey | asReadKey | asWriteKey | asAdminKey
	writeKeys = asAccountKey | asWriteKey | asAdminKey
	adminKeys = asAccountKey | asAdminKey
	chiefs    = asOwner | asAdmin
	team      = chiefs | asReceptionist | asProvider

	readers    = readKeys | team
	writers    = writeKeys | team
	editors    = writeKeys | chiefs
	rulers     = adminKeys | chiefs
	inspectors = adminKeys | asOwner
	patients   = asCustomer | asTicket
	everyone   = asNobody<<1 - 1
)

// callerNames are the kinds of callers, and their names in the API reference.
var callerNames = []struct {
	who              callers
	name, documented string
}{
	{asAccountKey, "an account key", "account key"},
	{asReadKey, "a key to read", "organization key"},
	{asWriteKey, "a key to write", "organization key"},
	{asAdminKey, "a key for all", "organization key"},
	{asOwner, "an owner", "owner"},
	{asAdmin, "an admin", "admin"},
	{asReceptionist, "a receptionist", "receptionist"},
	{asProvider, "a provider", "provider"},
	{asScreen, "a screen", "screen"},
	{asCustomer, "a customer", "customer"},
	{asTicket, "a ticket", "ticket"},
	{asDisplay, "a display", "display"},
	{asNobody, "nobody", ""},
}

// permission is a route and its permitted callers. The request names real things of
// the world ("$room") and would succeed, so that a route without its check shows.
type permission struct {
	route string // as the router knows it; ANY stands for every method
	who   callers
	path  string // with ids and query; empty if the route is enough
	body  string
	// filters: the ids only narrow what is the caller's own, so a stranger gets
	// an answer, without anything of ours.
	filters bool
	// audited: to read it is written down.
	audited bool
	whose   whose
}

// whose is which customers a route names or shows. Without one, it names none.
type whose int

const (
	own    whose = iota + 1 // the customer who asks
	served                  // to a provider, those with a booking at their resources; to others, every customer
	anyone                  // every customer; not for providers
)

// permissions are written by hand. A route of the router that is not in them fails the
// test, and so does one of them that the router does not have.
var permissions = []permission{
	// Pages, and what is for those who run the service.
	{route: "GET /", who: everyone},
	{route: "GET /console", who: everyone},
	{route: "GET /docs", who: everyone},
	{route: "GET /setup", who: everyone},
	{route: "GET /join/:organizationId", who: everyone, path: "/join/$organization"},
	{route: "GET /ticket/:bookingId", who: everyone, path: "/ticket/$booking"},
	{route: "GET /display/:displayId", who: everyone, path: "/display/$display"},
	{route: "GET /static/*path", who: everyone, path: "/static/base.css"},
	{route: "GET /files/:fileId/:name", who: everyone, path: "/files/none/photo.jpg"}, // an id is the credential
	{route: "GET /healthz", who: everyone},
	{route: "GET /readyz", who: everyone},
	{route: "GET /metrics", who: asAccountKey},
	{route: "GET /openapi.json", who: everyone},
	{route: "GET /openapi-3.0.json", who: everyone},
	{route: "GET /asyncapi.json", who: everyone},
	{route: "GET /connection/websocket", who: everyone}, // the connect command says who it is
	{route: "ANY /operator/jobs", who: asAccountKey},
	{route: "ANY /operator/jobs/*path", who: asAccountKey, path: "/operator/jobs/api/jobs"},

	// Sign-in: what comes in the body is the credential.
	{route: "POST /auth/otp/request", who: everyone},
	{route: "POST /auth/otp/verify", who: everyone},
	{route: "GET /auth/token", who: everyone},
	{route: "POST /auth/token", who: everyone},
	{route: "POST /auth/logout", who: everyone, body: `{"refreshToken":"none"}`}, // or it would end the session that asks
	{route: "POST /auth/setup", who: everyone},

	// What an organization offers.
	{route: "GET /availability/organization", who: everyone},
	{route: "POST /availability/types", who: everyone, body: `{"type":"$type","resourceFilters":{"resource":"$room"}}`, filters: true},
	{route: "POST /availability/resources", who: everyone, body: `{"type":"$type"}`, filters: true},
	{route: "POST /availability/resourceCategories", who: everyone, body: `{"type":"$type"}`, filters: true},
	{route: "POST /availability/times", who: everyone, body: `{"type":"$type"}`, filters: true},
	{route: "GET /calendar/:token.ics", who: everyone, path: "/calendar/unknown.ics"}, // the token is the credential
	{route: "GET /customFields/resourceFilters", who: everyone},
	{route: "GET /customFields/timeAdjusters", who: everyone, path: "/customFields/timeAdjusters?type=$type"},
	{route: "GET /customFields/bookingInfo", who: everyone, path: "/customFields/bookingInfo?type=$type"},
	{route: "GET /customFields/customer", who: everyone},
	{route: "GET /availability/resources/:resourceId", who: everyone, path: "/availability/resources/$room"},
	{route: "GET /website", who: everyone},
	{route: "GET /website/find", who: everyone, path: "/website/find?url=https://elsewhere.example"}, // a website is public

	// Patients.
	{route: "PUT /customer/scheduling/new", who: asCustomer, body: `{"type":"$type","assign":false}`, whose: own},
	{route: "GET /customer/bookings", who: asCustomer, whose: own},
	{route: "GET /customer/bookings/:bookingId", who: patients, path: "/customer/bookings/$requested", whose: own},
	{route: "GET /customer/bookings/:bookingId.ics", who: patients, path: "/customer/bookings/$requested.ics", whose: own},
	{route: "POST /customer/bookings/cancel", who: patients, body: `{"bookingId":"$waiting"}`, whose: own},
	{route: "POST /customer/bookings/reschedule", who: asCustomer | asTicket, body: `{"bookingId":"$requested","date":"$day","time":1500}`, whose: own},
	{route: "GET /customer/profile", who: asCustomer, whose: own},
	{route: "PUT /customer/profile", who: asCustomer, body: `{"firstName":"Changed"}`, whose: own},
	{route: "GET /customer/profile/export", who: asCustomer, audited: true, whose: own},
	{route: "DELETE /customer/profile", who: asCustomer, whose: own},
	{route: "POST /devices", who: team | asCustomer, body: `{"token":"another phone","platform":"ios"}`, whose: own},
	{route: "DELETE /devices", who: team | asCustomer, body: `{"token":"$phone"}`, filters: true, whose: own},

	// Bookings.
	{route: "PUT /management/scheduling/new", who: writers, body: `{"type":"$type","assign":false,"customerIdentifier":{"id":"$customer"}}`, whose: served},
	{route: "PUT /management/scheduling/temporary", who: writers, body: `{"type":"$type","date":"$day","time":1600,"customerIdentifier":{"id":"$customer"}}`, whose: served},
	{route: "POST /management/scheduling/confirm", who: writers, body: `{"bookingId":"$reserved"}`, whose: served},
	{route: "GET /management/bookings", who: readers, path: "/management/bookings?customerId=$customer&resources=$room&includes=customer,type,resource", filters: true, whose: served},
	{route: "GET /management/bookings/:bookingId", who: readers, path: "/management/bookings/$booking", whose: served},
	{route: "GET /management/bookings/unassigned", who: readers, path: "/management/bookings/unassigned?resourceId=$room", whose: served},
	{route: "POST /management/bookings/assign", who: writers, body: `{"bookingId":"$waiting","resourceId":"$room"}`, whose: served},
	{route: "POST /management/bookings/cancel", who: writers, body: `{"bookingId":"$waiting","reason":"None"}`, whose: served},
	{route: "POST /management/bookings/approve", who: writers, body: `{"bookingId":"$approved"}`, whose: served},
	{route: "POST /management/bookings/reject", who: writers, body: `{"bookingId":"$rejected","reason":"None"}`, whose: served},
	{route: "POST /management/bookings/start", who: writers, body: `{"bookingId":"$called"}`, whose: served},
	{route: "POST /management/bookings/end", who: writers, body: `{"bookingId":"$booking"}`, whose: served},
	{route: "POST /management/bookings/noShow", who: writers, body: `{"bookingId":"$called"}`, whose: served},
	{route: "POST /management/bookings/recall", who: writers, body: `{"bookingId":"$called"}`, whose: served},
	{route: "POST /management/bookings/hold", who: writers, body: `{"bookingId":"$waiting"}`, whose: served},
	{route: "POST /management/bookings/return", who: writers, body: `{"bookingId":"$held"}`, whose: served},
	{route: "POST /management/bookings/undo", who: writers, body: `{"bookingId":"$called"}`, whose: served},
	{route: "POST /management/queue/next", who: writers, body: `{"resourceId":"$room"}`, whose: served},
	{route: "GET /management/queue", who: readers, path: "/management/queue?resourceId=$room", whose: served},
	{route: "POST /management/queue/pause", who: writers, body: `{"resourceId":"$room"}`},
	{route: "POST /management/queue/resume", who: writers, body: `{"resourceId":"$away"}`},

	// The catalogue.
	{route: "GET /management/types", who: readers},
	{route: "POST /management/types", who: editors, body: `{"name":"More","minutes":5}`},
	{route: "GET /management/types/:id", who: readers, path: "/management/types/$type"},
	{route: "PUT /management/types/:id", who: editors, path: "/management/types/$type", body: `{"minutes":7}`},
	{route: "DELETE /management/types/:id", who: editors, path: "/management/types/$spareType"},
	{route: "GET /management/resources", who: readers},
	{route: "POST /management/resources", who: editors, body: `{"name":"More","types":["$type"]}`},
	{route: "GET /management/resources/mine", who: readers},
	{route: "GET /management/resources/confirmedViewable", who: readers},
	{route: "GET /management/resources/requestsViewable", who: readers},
	{route: "GET /management/resources/:resourceId", who: readers, path: "/management/resources/$room"},
	{route: "PUT /management/resources/:resourceId", who: editors, path: "/management/resources/$room", body: `{"on":false}`},
	{route: "DELETE /management/resources/:resourceId", who: editors, path: "/management/resources/$spareRoom"},
	{route: "POST /management/resources/:resourceId/calendarFeed", who: editors | asProvider, path: "/management/resources/$room/calendarFeed"},
	{route: "DELETE /management/resources/:resourceId/calendarFeed", who: editors | asProvider, path: "/management/resources/$room/calendarFeed"},
	{route: "GET /management/timeRules", who: readers},
	{route: "PUT /management/timeRules", who: editors, body: `{"depthOfDays":30}`},
	{route: "GET /management/timeRules/:resourceId", who: readers, path: "/management/timeRules/$room"},
	{route: "PUT /management/timeRules/:resourceId", who: writers, path: "/management/timeRules/$room", body: `{"depthOfDays":30}`},
	{route: "GET /management/offRules", who: readers},
	{route: "PUT /management/offRules", who: editors, body: `{"rules":[{"from":"2026-01-01"}]}`},
	{route: "GET /management/offRules/:resourceId", who: readers, path: "/management/offRules/$room"},
	{route: "PUT /management/offRules/:resourceId", who: writers, path: "/management/offRules/$room", body: `{"rules":[{"from":"2026-01-01"}]}`},
	{route: "GET /management/website", who: readers},
	{route: "PUT /management/website", who: editors, body: `{"terms":"Changed"}`},
	{route: "POST /management/website/publish", who: editors},
	{route: "GET /management/customFields/customer", who: readers},
	{route: "PUT /management/customFields/customer", who: editors, body: `[{"id":"age","name":"Age","type":"number"}]`},
	{route: "GET /management/customFields/booking", who: readers},
	{route: "PUT /management/customFields/booking", who: editors, body: `[{"id":"reason","name":"Reason","type":"text"}]`},
	{route: "GET /management/displays", who: readers | asScreen},
	{route: "POST /management/displays", who: rulers, body: `{"name":"More","resourceIds":["$room"]}`},
	{route: "DELETE /management/displays", who: rulers, body: `{"id":"$display"}`},

	// People.
	{route: "GET /management/customers", who: readers, whose: served},
	{route: "GET /management/customers/:customerId", who: readers, path: "/management/customers/$customer", whose: served},
	{route: "PUT /management/customers/:customerId", who: writers, path: "/management/customers/$customer", body: `{"note":"Changed"}`, whose: served},
	{route: "POST /management/customers/merge", who: writers &^ asProvider, body: `{"customerId":"$customer","duplicateId":"$twin"}`, whose: anyone},
	{route: "GET /management/customers/:customerId/export", who: rulers, path: "/management/customers/$customer/export", audited: true, whose: anyone},
	{route: "DELETE /management/customers/:customerId", who: rulers, path: "/management/customers/$customer", whose: anyone},
	{route: "GET /management/members", who: rulers},
	{route: "POST /management/members", who: rulers, body: `{"phone":"+966555999001","role":"receptionist","resources":["$room"]}`},
	{route: "PUT /management/members/:id", who: rulers, path: "/management/members/$member", body: `{"role":"admin"}`},
	{route: "DELETE /management/members", who: rulers, body: `{"id":"$member"}`},

	// Tenants, keys, and what the organization tells others.
	{route: "GET /management/organizations", who: readers},
	{route: "POST /management/organizations", who: asAccountKey, body: `{"name":"More","timezone":"UTC"}`},
	{route: "GET /management/organizations/:id", who: readers, path: "/management/organizations/$organization"},
	{route: "PUT /management/organizations/:id", who: rulers, path: "/management/organizations/$organization", body: `{"name":"Changed"}`},
	{route: "DELETE /management/organizations/:id", who: asAccountKey | asOwner, path: "/management/organizations/$organization"},
	{route: "GET /management/apiKeys", who: rulers},
	{route: "POST /management/apiKeys", who: rulers, body: `{"name":"more"}`},
	{route: "DELETE /management/apiKeys", who: rulers, body: `{"name":"$key"}`},
	{route: "POST /management/apiKeys/rotate", who: rulers, body: `{"name":"$key"}`},
	{route: "GET /management/account/apiKeys", who: asAccountKey},
	{route: "POST /management/account/apiKeys", who: asAccountKey, body: `{"name":"more"}`},
	{route: "POST /management/account/apiKeys/rotate", who: asAccountKey, body: `{"name":"more"}`},
	{route: "DELETE /management/account/apiKeys", who: asAccountKey, body: `{"name":"more"}`},
	{route: "GET /management/audit", who: inspectors, path: "/management/audit?subjectId=$booking", filters: true, whose: anyone},
	{route: "GET /management/account/audit", who: asAccountKey},
	{route: "GET /management/messages", who: rulers},
	{route: "PUT /management/messages", who: rulers, body: `{"reminders":{"afterAppointment":["sms"]}}`},
	{route: "GET /management/messages/log", who: rulers},
	{route: "GET /management/webhooks", who: rulers},
	{route: "POST /management/webhooks", who: rulers, body: `{"trigger":"newBooking","url":"$receiver/more"}`},
	{route: "DELETE /management/webhooks", who: rulers, body: `{"trigger":"bookingUnassigned","url":"$hook"}`},
	{route: "POST /management/webhooks/rotate", who: rulers, body: `{"trigger":"bookingUnassigned","url":"$hook"}`},
	{route: "POST /management/webhooks/sample", who: rulers, body: `{"trigger":"newBooking"}`, whose: anyone}, // an invented one
	{route: "GET /management/webhooks/deliveries", who: rulers, path: "/management/webhooks/deliveries?webhookId=$webhook&bookingId=$booking", filters: true, whose: anyone},
	{route: "POST /management/webhooks/deliveries/:deliveryId/replay", who: rulers, path: "/management/webhooks/deliveries/$delivery/replay"},
	{route: "POST /management/webhooks/deliveries/replay", who: rulers, body: `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","webhookId":"$webhook"}`, filters: true},
}

// windows is what may be watched live, and who may.
var windows = []struct {
	channel string
	who     callers
}{
	{"booking:$booking", readers | asCustomer},
	{"booking:$requested", readers | patients},
	{"booking:$elsewhere", readers &^ asProvider},
	{"queue:$room", readers},
	{"queue:$away", readers &^ asProvider},
	{"display:$display", readers | asScreen | asDisplay},
	{"display:$hall", readers | asScreen},
}

// world is a clinic with one of everything, and somebody of every kind.
type world struct {
	*nodetest.Clinic
	mark, digits string
	tables       map[string]string
	ids          map[string]string // what "$name" stands for
	tokens       map[callers]string
	former       string            // the token of a provider without resources
	strange      map[string]string // as ids, but of a customer of another provider
}

// newWorld makes a world. All its names hold mark, and its phone numbers digits.
func newWorld(h *nodetest.Node, mark, digits, receiver string) *world {
	h.T.Helper()
	post, put := http.MethodPost, http.MethodPut
	w := &world{mark: mark, digits: digits, tables: ownTables(h), tokens: map[callers]string{asAccountKey: nodetest.BootstrapKey, asNobody: ""}}
	made := h.Send(nodetest.Request{Method: post, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": mark + " Clinic", "timezone": "Asia/Riyadh"}}).OK()
	w.Clinic = &nodetest.Clinic{Node: h, ID: made.Str("result.id")}
	for who, scope := range map[callers]string{asReadKey: "read", asWriteKey: "write", asAdminKey: "admin"} {
		body := nodetest.Object{"name": mark + " " + scope, "scopes": []string{scope}}
		w.tokens[who] = h.Send(nodetest.Request{Method: post, Path: "/management/apiKeys", Token: nodetest.BootstrapKey, App: w.ID, Body: body}).OK().Str("result.key")
	}
	w.Key = w.tokens[asAdminKey]
	phone := func(n int) string { return fmt.Sprintf("+%s%03d", digits, n) }
	person := func(n int, more nodetest.Object) nodetest.Object {
		p := nodetest.Object{"phone": phone(n), "firstName": mark, "lastName": mark + " Family"}
		maps.Copy(p, more)
		return p
	}
	hook := receiver + "/" + mark
	webhook := w.Staff(post, "/management/webhooks", nodetest.Object{"trigger": "bookingUnassigned", "url": hook}).OK().Str("webhook.id")

	kind, other := w.NewType(nodetest.Object{"name": mark + " Checkup"}), w.NewType(nodetest.Object{"name": mark + " Scan"})
	visit := w.NewType(nodetest.Object{"name": mark + " Visit", "autoConfirm": false})
	room, away := w.NewResource(nodetest.Object{"name": mark + " Room"}, kind, visit), w.NewResource(nodetest.Object{"name": mark + " Attic"}, other)
	hire := func(n int, role models.Role, more nodetest.Object) string {
		more["role"] = role
		return w.Staff(post, "/management/members", person(n, more)).OK().Str("result.id")
	}
	for i, m := range []struct {
		who  callers
		role models.Role
		more nodetest.Object
	}{
		{asOwner, models.RoleOwner, nodetest.Object{}}, {asAdmin, models.RoleAdmin, nodetest.Object{}}, {asReceptionist, models.RoleReceptionist, nodetest.Object{}},
		{asProvider, models.RoleProvider, nodetest.Object{"resources": []string{room}}}, {asScreen, models.RoleScreen, nodetest.Object{}},
	} {
		hire(i, m.role, m.more)
		w.tokens[m.who] = w.SignIn(phone(i), true).Str("accessToken")
	}

	w.tokens[asCustomer] = w.Patient(phone(20))
	as := func(method, path string, body any) nodetest.Response {
		return h.Send(nodetest.Request{Method: method, Path: path, Token: w.tokens[asCustomer], Body: body}).OK()
	}
	as(put, "/customer/profile", nodetest.Object{"firstName": mark, "lastName": mark + " Family"})
	as(post, "/devices", nodetest.Object{"token": mark + " phone", "platform": "ios"})
	request := func(military int) nodetest.Response {
		return as(put, "/customer/scheduling/new", nodetest.Appointment(visit, nodetest.Day(3), military, nil))
	}
	requested, approved, rejected := request(1000), request(1200), request(1300)
	w.tokens[asTicket] = requested.Str("result.ticketToken")
	reserved := w.Staff(put, "/management/scheduling/temporary",
		nodetest.Appointment(visit, nodetest.Day(3), 1100, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": phone(20)}, "reservedForMinutes": 600})).OK().Str("id")
	mine := as(put, "/customer/scheduling/new", nodetest.Joining(kind, nodetest.Object{"note": mark + " aches"}))
	w.Next(room).OK()
	w.Act("start", mine.Str("result.id"), nil).OK()
	join := func(typeID string, n int) string {
		return w.Join(typeID, nodetest.Object{"customerIdentifier": person(n, nil), "note": mark + " aches"}).Str("id")
	}
	called := join(kind, 21)
	w.Next(room).OK()
	held := join(kind, 22)
	w.Act("hold", held, nil).OK()
	elsewhere := join(other, 23)
	w.Next(away).OK()
	twin := w.Join(other, nodetest.Object{"customerIdentifier": person(25, nil)})
	w.Act("cancel", twin.Str("id"), nil).OK()
	display := w.Staff(post, "/management/displays", nodetest.Object{"name": mark + " Door"}).OK()
	w.tokens[asDisplay] = display.Str("result.token")
	w.ids = map[string]string{
		"organization": w.ID, "key": mark + " write", "member": hire(10, models.RoleReceptionist, nodetest.Object{}),
		"requested": requested.Str("result.id"), "approved": approved.Str("result.id"), "rejected": rejected.Str("result.id"),
		"reserved": reserved, "day": nodetest.Day(4),
		"type": kind, "spareType": w.NewType(nodetest.Object{"name": mark + " Spare"}),
		"room": room, "away": away, "spareRoom": w.NewResource(nodetest.Object{"name": mark + " Cellar"}),
		"booking": mine.Str("result.id"), "called": called, "held": held, "waiting": join(kind, 24), "elsewhere": elsewhere,
		"customer": mine.Str("result.customerId"), "phone": mark + " phone", "twin": twin.Str("customerId"),
		"display": display.Str("result.id"), "hall": w.Staff(post, "/management/displays", nodetest.Object{"name": mark + " Hall"}).OK().Str("result.id"),
		"webhook": webhook, "hook": hook, "receiver": receiver,
	}
	hire(11, models.RoleProvider, nodetest.Object{})
	w.former = w.SignIn(phone(11), true).Str("accessToken")
	w.strange = maps.Clone(w.ids)
	// A call can be taken back as long as these tests take.
	h.Exec("UPDATE bookings SET undo_until = ? WHERE undo_action = 'assign'", time.Now().UTC().Add(time.Hour))
	for _, name := range []string{"booking", "called", "held", "waiting", "requested", "approved", "rejected", "reserved"} {
		w.strange[name] = elsewhere
	}
	w.strange["customer"] = nodetest.Scalar[string](h, "SELECT customer_id FROM bookings WHERE id = ?", elsewhere)
	require.Eventually(h.T, func() bool {
		return nodetest.Scalar[int](h, "SELECT count(*) FROM webhook_deliveries WHERE organization_id = ? AND status = 'delivered'", w.ID) == 6
	}, nodetest.Patience, 10*time.Millisecond)
	w.ids["delivery"] = nodetest.Scalar[string](h, "SELECT min(id) FROM webhook_deliveries WHERE organization_id = ?", w.ID)
	return w
}

var placeholder = regexp.MustCompile(`\$\w+`)

// fill puts the world's ids into what is asked.
func (w *world) fill(text string) string { return w.fillWith(w.ids, text) }

func (w *world) fillWith(ids map[string]string, text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(name string) string {
		id, ok := ids[name[1:]]
		require.True(w.T, ok, "%s is nothing", name)
		return id
	})
}

// ask returns a request of a route: one that would succeed in this world if works is
// true, else one that is refused as malformed after the permission was checked.
func (w *world) ask(p permission, works bool) nodetest.Request {
	method, path, _ := strings.Cut(p.route, " ")
	if p.path != "" {
		path = p.path
	}
	r := nodetest.Request{Method: method, Path: path}
	if p.body != "" {
		r.Body = w.fill(p.body)
	}
	if method != http.MethodGet && method != "ANY" && !works {
		r.Body = "[]"
		if strings.HasPrefix(p.body, "[") {
			r.Body = "{}"
		}
		r.Path = placeholder.ReplaceAllString(r.Path, "d3q1v5s8k7c0a1b2c3d0")
	}
	r.Path = w.fill(r.Path)
	return r
}

// background are tables that the service itself goes on writing.
var background = regexp.MustCompile(`^(river_|goose_|sqlite_|position_)`)

// ownTables are those with rows of organizations, by the column that says whose.
func ownTables(h *nodetest.Node) map[string]string {
	h.T.Helper()
	db := h.Store.Read(h.T.Context())
	tables, err := db.Migrator().GetTables()
	require.NoError(h.T, err)
	owners := map[string]string{"organizations": "id"}
	for _, table := range tables {
		if !background.MatchString(table) && db.Migrator().HasColumn(table, "organization_id") {
			owners[table] = "organization_id"
		}
	}
	return owners
}

// kept is everything of the organization in the database, but for how often
// its API keys were used and what waits were quoted: those are written in the
// background.
func (w *world) kept() string {
	w.T.Helper()
	var all strings.Builder
	for _, table := range slices.Sorted(maps.Keys(w.tables)) {
		var rows []map[string]any
		require.NoError(w.T, w.Store.Read(w.T.Context()).Table(table).Where(w.tables[table]+" = ?", w.ID).Find(&rows).Error)
		lines := make([]string, len(rows))
		for i, row := range rows {
			maps.DeleteFunc(row, func(column string, _ any) bool {
				return strings.HasPrefix(column, "quoted_") || table == "api_keys" && slices.Contains([]string{"last_used_at", "requests", "errors"}, column)
			})
			lines[i] = fmt.Sprint(row) // maps print sorted
		}
		slices.Sort(lines)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(lines, "\n"))
	}
	return all.String()
}

// identities are what nobody may see who does not belong to the world: its
// names, its phone numbers and its ids.
func (w *world) identities() []string {
	w.T.Helper()
	found := []string{w.mark, w.digits}
	for _, id := range w.ids {
		if id != w.ids["receiver"] && id != w.ids["day"] {
			found = append(found, id)
		}
	}
	var ids []string
	require.NoError(w.T, w.Store.Read(w.T.Context()).Raw(`SELECT id FROM bookings WHERE organization_id = ? UNION SELECT id FROM members WHERE organization_id = ?
		UNION SELECT id FROM customers WHERE organization_id = ? UNION SELECT id FROM webhook_deliveries WHERE organization_id = ?`,
		w.ID, w.ID, w.ID, w.ID).Scan(&ids).Error)
	return append(found, ids...)
}

// hides requires an answer to hold nothing that is not in its question.
func hides(a nodetest.Response, identities []string, r nodetest.Request, who string) {
	a.T.Helper()
	asked := fmt.Sprint(r.Path, r.Body, r.App)
	for _, id := range identities {
		if strings.Contains(string(a.Raw), id) && !strings.Contains(asked, id) {
			assert.Fail(a.T, "an answer tells too much", "%s learns %s from %s: %s", who, id, a.Of, a.Raw)
		}
	}
}

// missing are the statuses that say that there is no such thing, or that the
// caller may not.
var missing = []int{http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity}

// TestCallersWithoutPermissionAreRefusedOnEveryRoute sends every request, and subscribes
// to every live channel, as each kind of caller: one of this organization, and one of
// another organization that knows the ids of this one. A caller without permission is
// refused, learns nothing and changes nothing.
func TestCallersWithoutPermissionAreRefusedOnEveryRoute(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(receiver.Close)
		checkPermissions(t, h)
		ours, theirs := newWorld(h, "Zanzibar", "966555111", receiver.URL), newWorld(h, "Quetzal", "966555222", receiver.URL)
		identities := ours.identities()
		before := ours.kept()
		for _, p := range permissions {
			for _, who := range callerNames {
				ours.refuse(p, who.who, who.name)
				theirs.intrude(p, ours, identities, who.who, who.name)
			}
			ours.reach(p)
			require.Equal(t, before, ours.kept(), "%s, or what was let in before", p.route)
			for _, who := range callerNames {
				ours.admit(p, who.who, who.name)
			}
			if p.audited {
				before = ours.kept()
			}
		}
		require.Equal(t, before, ours.kept(), "what was let in at last")
		for _, who := range callerNames {
			if who.who == asNobody {
				continue // is not let in to watch anything
			}
			for i, allowed := range ours.watchAll(ours, who.who) {
				assert.Equal(t, windows[i].who&who.who != 0, allowed, "%s: %s", who.name, windows[i].channel)
			}
			for i, allowed := range theirs.watchAll(ours, who.who) {
				assert.Equal(t, who.who == asAccountKey, allowed, "%s of another organization: %s", who.name, windows[i].channel)
			}
		}
	})
}

// checkPermissions requires an entry for every route, a route for every entry, and
// the API reference to say the same.
func checkPermissions(t *testing.T, h *nodetest.Node) {
	t.Helper()
	known, routes, shown := map[string]callers{}, map[string]bool{}, map[string]whose{}
	for _, p := range permissions {
		assert.False(t, p.whose == anyone && p.who&asProvider != 0, "%s shows a provider every customer", p.route)
		shown[p.route] = p.whose
		assert.Zero(t, known[p.route], "%s is here twice", p.route)
		known[p.route] = p.who
	}
	for _, route := range h.Handlers.Routes() {
		method, path, _ := strings.Cut(route, " ")
		switch {
		case strings.HasPrefix(path, "/operator/jobs"):
			method = "ANY"
		case method == http.MethodHead:
			method = http.MethodGet
		}
		route = method + " " + path
		if path == receiptsPath { // the carrier signs what it reports, and has no credential
			continue
		}
		assert.NotZero(t, known[route], "%s has no entry", route)
		routes[route] = true
	}
	for route := range known {
		assert.True(t, routes[route], "%s is no route", route)
	}
	parameter := regexp.MustCompile(`\{(\w+)\}`)
	doc := document(h)
	for _, op := range operations(h) {
		documented := []string{}
		route := op.method + " " + parameter.ReplaceAllString(op.path, ":$1")
		if namesCustomers(doc, op.path, operationsAt(doc, op.path)[strings.ToLower(op.method)]) {
			assert.NotZero(t, shown[route], "%s names or shows customers: say whose", route)
		}
		may := known[route]
		for _, who := range callerNames {
			if may != everyone && may&who.who != 0 && !slices.Contains(documented, who.documented) {
				documented = append(documented, who.documented)
			}
		}
		assert.ElementsMatch(t, documented, op.who, "%s %s", op.method, op.path)
	}
}

// refuse requires a route to refuse a caller without permission.
func (w *world) refuse(p permission, who callers, name string) {
	w.T.Helper()
	if p.who&who != 0 {
		return
	}
	r := w.ask(p, true)
	r.Token, r.App = w.tokens[who], w.ID
	for _, r := range everyMethod(r) {
		a := w.Send(r)
		// What only operators see asks for their key, whatever came instead.
		if who == asNobody || strings.HasPrefix(p.route, "ANY") || p.route == "GET /metrics" {
			assert.Equal(w.T, http.StatusUnauthorized, a.Status, "%s: %s: %s", name, a.Of, a.Raw)
			assert.NotEmpty(w.T, a.Header.Get("WWW-Authenticate"), a.Of)
		} else {
			assert.Equal(w.T, http.StatusForbidden, a.Status, "%s: %s: %s", name, a.Of, a.Raw)
			assert.Contains(w.T, []string{string(models.CodeForbidden), string(models.CodeScope)}, a.Str("code"), a.Of)
		}
		hides(a, []string{w.mark, w.digits}, r, name)
	}
}

// intrude requires a route to refuse a caller of another organization that sends the
// ids of the victim, with the victim's X-APP-ID and without.
func (w *world) intrude(p permission, victim *world, identities []string, who callers, name string) {
	w.T.Helper()
	if who == asAccountKey {
		return // is nowhere a stranger
	}
	name += " of another organization"
	r := victim.ask(p, true)
	r.Token = w.tokens[who]
	for _, r := range everyMethod(r) {
		own := w.Send(r)
		hides(own, identities, r, name)
		if r.App = victim.ID; p.who != everyone && p.who&who != 0 {
			posing := w.Send(r)
			assert.Contains(w.T, []int{http.StatusUnauthorized, http.StatusForbidden}, posing.Status, "%s: %s: %s", name, posing.Of, posing.Raw)
			hides(posing, identities, r, name)
		}
		switch asked := p.path + p.body; {
		case p.who&who == 0:
			assert.Contains(w.T, []int{http.StatusUnauthorized, http.StatusForbidden}, own.Status, "%s: %s: %s", name, own.Of, own.Raw)
		case who == asNobody || p.filters || !strings.HasPrefix(p.route, "ANY") && !placeholder.MatchString(strings.ReplaceAll(asked, "$receiver", "")):
			assert.Less(w.T, own.Status, http.StatusInternalServerError, "%s: %s: %s", name, own.Of, own.Raw)
		case !strings.HasPrefix(own.Header.Get("Content-Type"), "text/html"): // pages are the same for all
			assert.Contains(w.T, missing, own.Status, "%s: %s: %s", name, own.Of, own.Raw)
		}
	}
}

// reach requires a route that shows customers to hide another provider's customer from
// a provider, and every customer from a provider without resources.
func (w *world) reach(p permission) {
	w.T.Helper()
	if p.whose != served {
		return
	}
	method, path, _ := strings.Cut(p.route, " ")
	path = cmp.Or(p.path, path)
	stranger := []string{w.strange["customer"], w.strange["booking"], nodetest.Scalar[string](w.Node, "SELECT phone FROM customers WHERE id = ?", w.strange["customer"])}
	for _, try := range []struct {
		name, token string
		ids         map[string]string
		hidden      []string
	}{
		{"a provider", w.tokens[asProvider], w.strange, stranger},
		{"a provider without resources", w.former, w.strange, []string{w.ids["customer"], w.digits}},
		{"a provider without resources", w.former, w.ids, []string{w.ids["customer"], w.digits}},
	} {
		r := nodetest.Request{Method: method, Path: w.fillWith(try.ids, path), Token: try.token}
		if p.body != "" {
			r.Body = w.fillWith(try.ids, p.body)
		}
		names := w.fill(path)+w.fill(p.body) != w.fillWith(w.strange, path+p.body)
		if try.token != w.former && !names && method != http.MethodGet {
			continue // of their own queue
		}
		a := w.Send(r)
		hides(a, try.hidden, r, try.name)
		if names && !p.filters || method != http.MethodGet {
			assert.Contains(w.T, append([]int{http.StatusBadRequest}, missing...), a.Status, "%s: %s: %s", try.name, a.Of, a.Raw)
		}
	}
}

// namesCustomers reports whether an operation of the API reference takes or
// shows something of a customer.
func namesCustomers(a nodetest.Response, path string, op any) bool {
	if strings.HasSuffix(path, "/customFields/customer") { // which fields there are, without values
		return false
	}
	if strings.Contains(strings.ToLower(path), "customer") {
		return true
	}
	seen := map[string]bool{}
	var in func(any) bool
	in = func(value any) bool {
		switch v := value.(type) {
		case []any:
			return slices.ContainsFunc(v, in)
		case nodetest.Object:
			if ref, ok := v["$ref"].(string); ok && !seen[ref] {
				seen[ref] = true
				return in(a.Resolve(v))
			}
			named, _ := v["name"].(string) // of a parameter
			properties, _ := v["properties"].(nodetest.Object)
			for _, name := range append(slices.Collect(maps.Keys(properties)), named) {
				if strings.Contains(strings.ToLower(name), "customer") {
					return true
				}
			}
			return slices.ContainsFunc(slices.Collect(maps.Values(v)), in)
		}
		return false
	}
	return in(nodetest.At(op, "parameters")) || in(nodetest.At(op, "requestBody")) || in(nodetest.At(op, "responses"))
}

// admit requires a route to accept a permitted caller. A GET succeeds; other requests
// are malformed, so they change nothing.
func (w *world) admit(p permission, who callers, name string) {
	w.T.Helper()
	if p.who&who == 0 {
		return
	}
	r := w.ask(p, false)
	r.Token, r.App = w.tokens[who], w.ID
	for _, r := range everyMethod(r) {
		a := w.Send(r)
		assert.NotContains(w.T, []int{http.StatusUnauthorized, http.StatusForbidden}, a.Status, "%s: %s: %s", name, a.Of, a.Raw)
		assert.Less(w.T, a.Status, http.StatusInternalServerError, "%s: %s: %s", name, a.Of, a.Raw)
		if r.Method == http.MethodGet && p.who != everyone {
			assert.Equal(w.T, http.StatusOK, a.Status, "%s: %s: %s", name, a.Of, a.Raw)
		}
	}
}

// everyMethod is the request with each method that ANY stands for.
func everyMethod(r nodetest.Request) []nodetest.Request {
	if r.Method != "ANY" {
		return []nodetest.Request{r}
	}
	var all []nodetest.Request
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		r.Method = method
		all = append(all, r)
	}
	return all
}

// watchAll subscribes somebody of this world to all windows of another, and
// says which let them look.
func (w *world) watchAll(other *world, who callers) []bool {
	w.T.Helper()
	l := dial(w.Node, w.tokens[who])
	defer l.hangUp()
	allowed := make([]bool, len(windows))
	for i, window := range windows {
		allowed[i] = l.subscribe(other.fill(window.channel)) == 0
	}
	return allowed
}

// wire is a live connection that is spoken to by hand.
type wire struct {
	*nodetest.Node
	ws   *websocket.Conn
	last int // command's number
}

// dial connects, and is let in.
func dial(h *nodetest.Node, token string) *wire {
	h.T.Helper()
	ws, res, err := websocket.Dial(h.T.Context(), "ws"+strings.TrimPrefix(h.URL, "http")+"/connection/websocket", nil)
	require.NoError(h.T, err)
	if res.Body != nil {
		require.NoError(h.T, res.Body.Close())
	}
	l := &wire{Node: h, ws: ws}
	require.Zero(h.T, l.ask("connect", nodetest.Object{"token": token}))
	return l
}

// subscribe returns the code of the error, 0 when there is none.
func (l *wire) subscribe(channel string) int {
	l.T.Helper()
	return l.ask("subscribe", nodetest.Object{"channel": channel})
}

func (l *wire) ask(command string, what nodetest.Object) int {
	l.T.Helper()
	l.last++
	ctx, cancel := context.WithTimeout(l.T.Context(), nodetest.Patience)
	defer cancel()
	asked, err := json.Marshal(nodetest.Object{"id": l.last, command: what})
	require.NoError(l.T, err)
	require.NoError(l.T, l.ws.Write(ctx, websocket.MessageText, asked))
	for {
		_, frame, err := l.ws.Read(ctx)
		require.NoError(l.T, err)
		for part := range strings.Lines(string(frame)) {
			var reply struct {
				ID    int
				Error struct{ Code int }
			}
			require.NoError(l.T, json.Unmarshal([]byte(part), &reply))
			if reply.ID == l.last {
				return reply.Error.Code
			}
		}
	}
}

// closed waits for the connection to be closed and returns the code, 0 when it
// is still open.
func (l *wire) closed(within time.Duration) int {
	l.T.Helper()
	ctx, cancel := context.WithTimeout(l.T.Context(), within)
	defer cancel()
	for {
		if _, _, err := l.ws.Read(ctx); ctx.Err() != nil {
			return 0
		} else if err != nil {
			return int(websocket.CloseStatus(err))
		}
	}
}

func (l *wire) hangUp() { l.ws.CloseNow() } //nolint:errcheck // it may be closed already
