package handlers_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// pluckErrors lists the fields a problem names.
func (a answer) wrongFields() []string {
	if a.at("errors") == nil {
		return nil
	}
	return a.pluck("errors", "field")
}

// filled is a clinic in which something has happened.
type filled struct {
	*clinic
	kind, other    string // types
	room, away     string // room serves kind, away serves other
	waiting, ended string // bookings of kind
	serving        string
	patientToken   string // token
	mine           string // a waiting booking of the patient
	display        string
	person         string // a customer's id
}

func (h *house) fill() *filled {
	h.t.Helper()
	c := h.newClinic()
	f := &filled{clinic: c}
	f.kind, f.other = c.newType(nil), c.newType(object{"name": "Other"})
	f.room, f.away = c.newResource(nil, f.kind), c.newResource(object{"name": "Away"}, f.other)
	f.ended, f.serving = c.join(f.kind, nil).str("id"), c.join(f.kind, nil).str("id")
	f.waiting = c.join(f.kind, nil).str("id")
	for _, id := range []string{f.ended, f.serving} {
		c.next(f.room).ok()
		c.act("start", id, nil).ok()
	}
	c.act("end", f.ended, nil).ok()
	f.patientToken = c.patient("+966500000011")
	mine := h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: f.patientToken, body: joining(f.kind, nil)}).ok()
	f.mine, f.person = mine.str("result.id"), mine.str("result.customerId")
	f.display = c.staff(http.MethodPost, "/management/displays", object{"name": "Hall"}).ok().str("result.id")
	return f
}

// unchanged makes a request that must change nothing.
func (h *house) unchanged(r request) answer {
	h.t.Helper()
	before := h.contents()
	a := h.send(r)
	require.Equal(h.t, before, h.contents(), "%s %s changed the database", r.method, r.path)
	return a
}

func TestBadInputIsExplainedAndChangesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.fill()
		const missing = "d3q1v5s8k7c0a1b2c3d0"
		post, put := http.MethodPost, http.MethodPut
		for _, test := range []struct {
			name   string
			r      request
			status int
			code   models.Code
			fields []string
		}{
			{"half an object", request{method: post, path: "/management/queue/next", body: `{"resourceId": `}, 400, models.CodeMalformed, nil},
			{"two objects", request{method: post, path: "/management/queue/next", body: `{"resourceId":"` + c.room + `"} {}`}, 400, models.CodeMalformed, nil},
			{"no JSON at all", request{method: put, path: "/management/scheduling/new", body: "type=a&assign=false"}, 400, models.CodeMalformed, nil},
			{"invalid UTF-8", request{method: put, path: "/management/scheduling/new", body: []byte(`{"type":"` + c.kind + `","assign":false,"note":"` + "\xff\xfe" + `"}`)}, 400, models.CodeMalformed, nil},
			{"a NUL character", request{method: put, path: "/management/scheduling/new", body: `{"type":"` + c.kind + `","assign":false,"note":"a\u0000b"}`}, 400, models.CodeMalformed, []string{"body"}},
			{"a number beyond all", request{method: post, path: "/management/types", body: `{"name":"a","minutes":1e999}`}, 400, models.CodeMalformed, []string{"body"}},
			{"invalid UTF-8 in the address", request{method: http.MethodGet, path: "/management/bookings?customerId=%ff"}, 400, models.CodeMalformed, nil},
			{"a NUL in the path", request{method: http.MethodGet, path: "/management/bookings/a%00b"}, 400, models.CodeMalformed, nil},
			{"a broken query", request{method: http.MethodGet, path: "/management/bookings?status=%zz"}, 400, models.CodeMalformed, nil},

			{"nothing", request{method: post, path: "/management/bookings/assign"}, 422, models.CodeInvalid, []string{"resourceId", "bookingId"}},
			{"an empty id", request{method: post, path: "/management/queue/next", body: object{"resourceId": ""}}, 422, models.CodeInvalid, []string{"resourceId"}},
			{"null", request{method: post, path: "/management/queue/next", body: object{"resourceId": nil}}, 422, models.CodeInvalid, []string{"resourceId"}},
			{"a list", request{method: post, path: "/management/queue/next", body: `[1]`}, 422, models.CodeInvalid, []string{"body"}},
			{"wrong types", request{method: put, path: "/management/scheduling/new", body: object{"type": 7, "assign": "no", "assignmentTimeout": "soon", "priority": 1.5}}, 422, models.CodeInvalid, []string{"priority", "type", "assign", "assignmentTimeout"}},
			{"a priority too high", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"priority": 101})}, 422, models.CodeInvalid, []string{"priority"}},
			{"a wrong type inside", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"customerIdentifier": object{"phone": 1}})}, 422, models.CodeInvalid, []string{"customerIdentifier.phone"}},
			{"no phone number", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"customerIdentifier": object{"phone": "12"}})}, 422, models.CodeInvalid, []string{"customerIdentifier.phone"}},
			{"neither a date nor the queue", request{method: put, path: "/management/scheduling/new", body: object{"type": c.kind}}, 422, models.CodeInvalid, []string{"date"}},
			{"too many custom fields", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"bookingInfoCustomFields": object{"a": strings.Repeat("x", 40<<10)}})}, 422, models.CodeInvalid, []string{"bookingInfoCustomFields"}},
			{"a type without a name", request{method: post, path: "/management/types", body: object{"minutes": 5}}, 422, models.CodeInvalid, []string{"name"}},
			{"a type without minutes", request{method: post, path: "/management/types", body: object{"name": "a"}}, 422, models.CodeInvalid, []string{"minutes"}},
			{"a price that is none", request{method: post, path: "/management/types", body: object{"name": "a", "minutes": 5, "price": "1.5"}}, 422, models.CodeInvalid, []string{"price"}},
			{"a way to pay that is none", request{method: post, path: "/management/types", body: object{"name": "a", "minutes": 5, "paymentMethods": []string{"gold"}}}, 422, models.CodeInvalid, []string{"paymentMethods[0]"}},
			{"a prefix in use", request{method: post, path: "/management/types", body: object{"name": "a", "minutes": 5, "prefix": "A"}}, 409, models.CodePrefixTaken, nil},
			{"a resource of an unknown type", request{method: post, path: "/management/resources", body: object{"name": "a", "types": []string{missing}}}, 422, models.CodeInvalid, []string{"types"}},
			{"a time zone that is none", request{method: post, path: "/management/organizations", token: bootstrapKey, body: object{"name": "a", "timezone": "Mars/Olympus"}}, 422, models.CodeInvalid, []string{"timezone"}},
			{"a page of nothing", request{method: http.MethodGet, path: "/management/types?limit=0"}, 422, models.CodeInvalid, []string{"limit"}},
			{"a page of text", request{method: http.MethodGet, path: "/management/bookings?limit=many"}, 422, models.CodeInvalid, []string{"limit"}},
			{"a token that is none", request{method: http.MethodGet, path: "/management/bookings?nextPageToken=!!"}, 400, models.CodePageToken, nil},
			{"another token that is none", request{method: http.MethodGet, path: "/management/customers?nextPageToken=!!"}, 400, models.CodePageToken, nil},
			{"a status that is none", request{method: http.MethodGet, path: "/management/bookings?status=CONFIRMED,GONE"}, 422, models.CodeInvalid, []string{"status"}},
			{"a day that is none", request{method: http.MethodGet, path: "/management/bookings?from=tomorrow"}, 422, models.CodeInvalid, []string{"from"}},
			{"a direction that is none", request{method: http.MethodGet, path: "/management/bookings?orderDirection=up"}, 422, models.CodeInvalid, []string{"orderDirection"}},
			{"a queue of nobody", request{method: http.MethodGet, path: "/management/queue"}, 422, models.CodeInvalid, []string{"resourceId"}},

			{"an unknown booking", request{method: post, path: "/management/bookings/assign", body: object{"bookingId": missing, "resourceId": c.room}}, 404, models.CodeBookingNotFound, nil},
			{"an unknown resource", request{method: post, path: "/management/bookings/assign", body: object{"bookingId": c.waiting, "resourceId": missing}}, 404, models.CodeResourceMissing, nil},
			{"an unknown type", request{method: put, path: "/management/scheduling/new", body: joining(missing, nil)}, 404, models.CodeTypeMissing, nil},
			{"an unknown type, from a patient", request{method: put, path: "/customer/scheduling/new", token: c.patientToken, body: joining(missing, nil)}, 404, models.CodeTypeMissing, nil},
			{"an unknown filter", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"resourceFilters": object{"resources": []string{c.room, missing}}})}, 404, models.CodeResourceMissing, nil},
			{"an unknown customer", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"customerIdentifier": object{"id": missing}})}, 404, models.CodeCustomerMissing, nil},
			{"an unknown display", request{method: http.MethodDelete, path: "/management/displays", body: object{"id": missing}}, 404, models.CodeDisplayMissing, nil},
			{"an unknown key", request{method: http.MethodDelete, path: "/management/apiKeys", body: object{"name": "nobody"}}, 404, models.CodeKeyMissing, nil},
			{"a key's name in use", request{method: post, path: "/management/apiKeys", body: object{"name": "desk"}}, 409, models.CodeKeyTaken, nil},
			{"an unknown organization", request{method: post, path: "/availability/types", token: "-", app: missing}, 404, models.CodeOrgMissing, nil},
			{"no organization", request{method: post, path: "/availability/types", token: "-"}, 400, models.CodeAppRequired, nil},

			{"a resource that does not serve the type", request{method: post, path: "/management/bookings/assign", body: object{"bookingId": c.waiting, "resourceId": c.away}}, 400, models.CodeTypeMismatch, nil},
			{"cancelling what is being served", request{method: post, path: "/management/bookings/cancel", body: object{"bookingId": c.serving}}, 409, models.CodeStage, nil},
			{"cancelling what is over", request{method: post, path: "/management/bookings/cancel", body: object{"bookingId": c.ended}}, 409, models.CodeStage, nil},
			{"ending what waits", request{method: post, path: "/management/bookings/end", body: object{"bookingId": c.waiting}}, 409, models.CodeStage, nil},
			{"deleting a type others wait for", request{method: http.MethodDelete, path: "/management/types/" + c.kind}, 409, models.CodeTypeInUse, nil},

			{"too much", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"note": strings.Repeat("x", 1<<20)})}, 413, models.CodeTooLarge, nil},
			{"too much, in chunks", request{method: put, path: "/management/scheduling/new", body: joining(c.kind, object{"note": strings.Repeat("x", 1<<20)}), chunked: true}, 413, models.CodeTooLarge, nil},

			{"a wrong code", request{method: post, path: "/auth/otp/verify", token: "-", app: c.id, body: object{"method": "sms", "phoneNumber": "+966500000099", "code": "1"}}, 401, models.CodeWrongCode, nil},
			{"a method that is none", request{method: post, path: "/auth/otp/request", token: "-", app: c.id, body: object{"method": "pigeon"}}, 422, models.CodeInvalid, []string{"method"}},
			{"a refresh token that is none", request{method: post, path: "/auth/token", token: "-", body: object{"refreshToken": "nothing"}}, 401, models.CodeUnauthenticated, nil},
			{"no refresh token", request{method: http.MethodGet, path: "/auth/token", token: "-"}, 422, models.CodeInvalid, []string{"refreshToken"}},
			{"an address that is none", request{method: http.MethodGet, path: "/management/nothing"}, 404, models.CodeRouteMissing, nil},
			{"a method not taken", request{method: http.MethodPatch, path: "/management/types"}, 405, models.CodeMethod, nil},
		} {
			r := test.r
			switch r.token {
			case "":
				r.token = c.key
			case "-":
				r.token = ""
			}
			a := h.unchanged(r)
			t.Log(test.name)
			a.refused(test.status, test.code)
			assert.ElementsMatch(t, test.fields, a.wrongFields(), "%s: %s", test.name, a.raw)
		}

		t.Log("a body of exactly 1 MiB is read")
		text := `{"resourceId":"` + missing + `"}`
		h.unchanged(request{method: post, path: "/management/queue/next", token: c.key, body: text + strings.Repeat(" ", 1<<20-len(text))}).
			refused(http.StatusNotFound, models.CodeResourceMissing)
		assert.NotContains(t, h.logged.String(), `"level":"ERROR"`)
	})
}

// TestFieldsAreExplainedInArabic asks for answers in Arabic.
func TestFieldsAreExplainedInArabic(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	c := h.newClinic()
	for name, body := range map[string]object{
		"missing": {}, "unknown": {"method": "fax"}, "wrong": {"method": "sms", "phoneNumber": "12"}, "of another type": {"method": 1},
	} {
		a := h.send(request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, lang: "ar", body: body})
		a.refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		for _, text := range append(a.pluck("errors", "message"), a.str("title"), a.str("detail")) {
			assert.Regexp(t, `^[\p{Arabic}\s،.]+$`, text, name)
		}
	}
}

func TestABodyThatSaysItIsTooLargeIsNotAwaited(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	c := h.newClinic()
	caller, err := new(net.Dialer).DialContext(context.Background(), "tcp", strings.TrimPrefix(h.URL, "http://"))
	require.NoError(t, err)
	defer func() { assert.NoError(t, caller.Close()) }()
	_, err = fmt.Fprintf(caller, "POST /management/types HTTP/1.1\r\nHost: x\r\nX-API-KEY: %s\r\nContent-Length: 10000000000\r\n\r\n{", c.key)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(caller), nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	assert.NoError(t, res.Body.Close())
}

func TestOtherTenantsLookLikeNobody(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		theirs := h.fill()
		ours := h.newClinic()
		kind := ours.newType(nil)
		room := ours.newResource(nil, kind)
		waiting := ours.join(kind, nil).str("id")
		patient := ours.patient("+966500000021")
		get, post, put, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
		for _, test := range []struct {
			method, path string
			body         any
			status       int
			code         models.Code
		}{
			{get, "/management/bookings/" + theirs.waiting, nil, 404, models.CodeBookingNotFound},
			{get, "/management/types/" + theirs.kind, nil, 404, models.CodeTypeMissing},
			{put, "/management/types/" + theirs.kind, object{"name": "Ours"}, 404, models.CodeTypeMissing},
			{del, "/management/types/" + theirs.other, nil, 404, models.CodeTypeMissing},
			{get, "/management/resources/" + theirs.room, nil, 404, models.CodeResourceMissing},
			{put, "/management/resources/" + theirs.room, object{"name": "Ours"}, 404, models.CodeResourceMissing},
			{del, "/management/resources/" + theirs.room, nil, 404, models.CodeResourceMissing},
			{post, "/management/resources", object{"name": "Ours", "types": []string{theirs.kind}}, 422, models.CodeInvalid},
			{get, "/management/customers/" + theirs.person, nil, 404, models.CodeCustomerMissing},
			{put, "/management/customers/" + theirs.person, object{"firstName": "Ours"}, 404, models.CodeCustomerMissing},
			{get, "/management/queue?resourceId=" + theirs.room, nil, 404, models.CodeResourceMissing},
			{get, "/management/bookings/unassigned?resourceId=" + theirs.room, nil, 404, models.CodeResourceMissing},
			{post, "/management/queue/next", object{"resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/queue/pause", object{"resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/queue/resume", object{"resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/bookings/assign", object{"bookingId": theirs.waiting, "resourceId": room}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/assign", object{"bookingId": waiting, "resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/bookings/cancel", object{"bookingId": theirs.waiting}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/start", object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/end", object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/noShow", object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/recall", object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/hold", object{"bookingId": theirs.waiting}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/return", object{"bookingId": theirs.waiting}, 404, models.CodeBookingNotFound},
			{put, "/management/scheduling/new", joining(theirs.kind, nil), 404, models.CodeTypeMissing},
			{put, "/management/scheduling/new", joining(kind, object{"resourceFilters": object{"resource": theirs.room}}), 404, models.CodeResourceMissing},
			{put, "/management/scheduling/new", joining(kind, object{"customerIdentifier": object{"id": theirs.person}}), 404, models.CodeCustomerMissing},
			{post, "/management/displays", object{"name": "Ours", "resourceIds": []string{theirs.room}}, 404, models.CodeResourceMissing},
			{del, "/management/displays", object{"id": theirs.display}, 404, models.CodeDisplayMissing},
			{get, "/management/organizations/" + theirs.id, nil, 404, models.CodeOrgMissing},
		} {
			h.unchanged(request{method: test.method, path: test.path, token: ours.key, body: test.body}).refused(test.status, test.code)
			if !strings.HasPrefix(test.path, "/management/organizations") {
				// An account key that names our organization is held to it, and so is ours that names theirs.
				h.unchanged(request{method: test.method, path: test.path, token: bootstrapKey, app: ours.id, body: test.body}).refused(test.status, test.code)
				h.unchanged(request{method: test.method, path: test.path, token: ours.key, app: theirs.id, body: test.body}).
					refused(http.StatusForbidden, models.CodeForbidden)
			}
		}
		// Patients: another's booking, here or elsewhere, looks like none.
		for _, id := range []string{theirs.mine, waiting} {
			h.unchanged(request{method: get, path: "/customer/bookings/" + id, token: patient}).refused(404, models.CodeBookingNotFound)
			h.unchanged(request{method: post, path: "/customer/bookings/cancel", token: patient, body: object{"bookingId": id}}).refused(404, models.CodeBookingNotFound)
		}
		h.unchanged(request{method: get, path: "/availability/resources/" + theirs.room, app: ours.id}).refused(404, models.CodeResourceMissing)
		h.unchanged(request{method: put, path: "/customer/scheduling/new", token: patient, app: theirs.id, body: joining(theirs.kind, nil)}).
			refused(http.StatusForbidden, models.CodeForbidden)
		// Lists show our own only.
		for _, path := range []string{"/management/types", "/management/resources", "/management/displays", "/management/customers", "/management/bookings?limit=500"} {
			for _, id := range ours.staff(get, path, nil).ok().pluck("result", "id") {
				assert.NotContains(t, []string{theirs.kind, theirs.room, theirs.display, theirs.person, theirs.waiting}, id)
			}
		}
		assert.Equal(t, []string{ours.id}, ours.staff(get, "/management/organizations", nil).ok().pluck("result", "id"))
		// A patient's refresh token is of no use elsewhere.
		refresh := ours.signIn("+966500000022", false).str("refreshToken")
		h.unchanged(request{method: post, path: "/auth/token", app: theirs.id, body: object{"refreshToken": refresh}}).refused(401, models.CodeUnauthenticated)
	})
}
