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

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// filled is a clinic in which something has happened.
type filled struct {
	*nodetest.Clinic
	kind, other    string // types
	room, away     string // room serves kind, away serves other
	waiting, ended string // bookings of kind
	serving        string
	patientToken   string // token
	mine           string // a waiting booking of the patient
	display        string
	person         string // a customer's id
}

func fill(h *nodetest.Node) *filled {
	h.T.Helper()
	c := h.NewClinic()
	f := &filled{Clinic: c}
	f.kind, f.other = c.NewType(nil), c.NewType(nodetest.Object{"name": "Other"})
	f.room, f.away = c.NewResource(nil, f.kind), c.NewResource(nodetest.Object{"name": "Away"}, f.other)
	f.ended, f.serving = c.Join(f.kind, nil).Str("id"), c.Join(f.kind, nil).Str("id")
	f.waiting = c.Join(f.kind, nil).Str("id")
	for _, id := range []string{f.ended, f.serving} {
		c.Next(f.room).OK()
		c.Act("start", id, nil).OK()
	}
	c.Act("end", f.ended, nil).OK()
	f.patientToken = c.Patient("+966500000011")
	mine := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: f.patientToken, Body: nodetest.Joining(f.kind, nil)}).OK()
	f.mine, f.person = mine.Str("result.id"), mine.Str("result.customerId")
	f.display = c.Staff(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).OK().Str("result.id")
	return f
}

func TestBadInputIsExplainedAndChangesNothing(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := fill(h)
		const missing = "d3q1v5s8k7c0a1b2c3d0"
		post, put := http.MethodPost, http.MethodPut
		for _, test := range []struct {
			name   string
			r      nodetest.Request
			status int
			code   models.Code
			fields []string
		}{
			{"half an object", nodetest.Request{Method: post, Path: "/management/queue/next", Body: `{"resourceId": `}, 400, models.CodeMalformed, nil},
			{"two objects", nodetest.Request{Method: post, Path: "/management/queue/next", Body: `{"resourceId":"` + c.room + `"} {}`}, 400, models.CodeMalformed, nil},
			{"no JSON at all", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: "type=a&assign=false"}, 400, models.CodeMalformed, nil},
			{"invalid UTF-8", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: []byte(`{"type":"` + c.kind + `","assign":false,"note":"` + "\xff\xfe" + `"}`)}, 400, models.CodeMalformed, nil},
			{"a NUL character", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: `{"type":"` + c.kind + `","assign":false,"note":"a\u0000b"}`}, 400, models.CodeMalformed, []string{"body"}},
			{"a number beyond all", nodetest.Request{Method: post, Path: "/management/types", Body: `{"name":"a","minutes":1e999}`}, 400, models.CodeMalformed, []string{"body"}},
			{"invalid UTF-8 in the address", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?customerId=%ff"}, 400, models.CodeMalformed, nil},
			{"a NUL in the path", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings/a%00b"}, 400, models.CodeMalformed, nil},
			{"a broken query", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?status=%zz"}, 400, models.CodeMalformed, nil},

			{"nothing", nodetest.Request{Method: post, Path: "/management/bookings/assign"}, 422, models.CodeInvalid, []string{"resourceId", "bookingId"}},
			{"an empty id", nodetest.Request{Method: post, Path: "/management/queue/next", Body: nodetest.Object{"resourceId": ""}}, 422, models.CodeInvalid, []string{"resourceId"}},
			{"null", nodetest.Request{Method: post, Path: "/management/queue/next", Body: nodetest.Object{"resourceId": nil}}, 422, models.CodeInvalid, []string{"resourceId"}},
			{"a list", nodetest.Request{Method: post, Path: "/management/queue/next", Body: `[1]`}, 422, models.CodeInvalid, []string{"body"}},
			{"wrong types", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Object{"type": 7, "assign": "no", "assignmentTimeout": "soon", "priority": 1.5}}, 422, models.CodeInvalid, []string{"priority", "type", "assign", "assignmentTimeout"}},
			{"a priority too high", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Joining(c.kind, nodetest.Object{"priority": 101})}, 422, models.CodeInvalid, []string{"priority"}},
			{"a wrong type inside", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Joining(c.kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": 1}})}, 422, models.CodeInvalid, []string{"customerIdentifier.phone"}},
			{"no phone number", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Joining(c.kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "12"}})}, 422, models.CodeInvalid, []string{"customerIdentifier.phone"}},
			{"neither a date nor the queue", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Object{"type": c.kind}}, 422, models.CodeInvalid, []string{"date"}},
			{"too many custom fields", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Joining(c.kind, nodetest.Object{"bookingInfoCustomFields": nodetest.Object{"a": strings.Repeat("x", 40<<10)}})}, 422, models.CodeInvalid, []string{"bookingInfoCustomFields"}},
			{"a type without a name", nodetest.Request{Method: post, Path: "/management/types", Body: nodetest.Object{"minutes": 5}}, 422, models.CodeInvalid, []string{"name"}},
			{"a type without minutes", nodetest.Request{Method: post, Path: "/management/types", Body: nodetest.Object{"name": "a"}}, 422, models.CodeInvalid, []string{"minutes"}},
			{"a price that is none", nodetest.Request{Method: post, Path: "/management/types", Body: nodetest.Object{"name": "a", "minutes": 5, "price": "1.5"}}, 422, models.CodeInvalid, []string{"price"}},
			{"a way to pay that is none", nodetest.Request{Method: post, Path: "/management/types", Body: nodetest.Object{"name": "a", "minutes": 5, "paymentMethods": []string{"gold"}}}, 422, models.CodeInvalid, []string{"paymentMethods[0]"}},
			{"a prefix in use", nodetest.Request{Method: post, Path: "/management/types", Body: nodetest.Object{"name": "a", "minutes": 5, "prefix": "A"}}, 409, models.CodePrefixTaken, nil},
			{"a resource of an unknown type", nodetest.Request{Method: post, Path: "/management/resources", Body: nodetest.Object{"name": "a", "types": []string{missing}}}, 422, models.CodeInvalid, []string{"types"}},
			{"a time zone that is none", nodetest.Request{Method: post, Path: "/management/organizations", Token: nodetest.BootstrapKey, Body: nodetest.Object{"name": "a", "timezone": "Mars/Olympus"}}, 422, models.CodeInvalid, []string{"timezone"}},
			{"a page of nothing", nodetest.Request{Method: http.MethodGet, Path: "/management/types?limit=0"}, 422, models.CodeInvalid, []string{"limit"}},
			{"a page of text", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?limit=many"}, 422, models.CodeInvalid, []string{"limit"}},
			{"a token that is none", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?nextPageToken=!!"}, 400, models.CodePageToken, nil},
			{"another token that is none", nodetest.Request{Method: http.MethodGet, Path: "/management/customers?nextPageToken=!!"}, 400, models.CodePageToken, nil},
			{"a status that is none", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?status=CONFIRMED,GONE"}, 422, models.CodeInvalid, []string{"status"}},
			{"a day that is none", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?from=tomorrow"}, 422, models.CodeInvalid, []string{"from"}},
			{"a direction that is none", nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?orderDirection=up"}, 422, models.CodeInvalid, []string{"orderDirection"}},
			{"a queue of nobody", nodetest.Request{Method: http.MethodGet, Path: "/management/queue"}, 422, models.CodeInvalid, []string{"resourceId"}},

			{"an unknown booking", nodetest.Request{Method: post, Path: "/management/bookings/assign", Body: nodetest.Object{"bookingId": missing, "resourceId": c.room}}, 404, models.CodeBookingNotFound, nil},
			{"an unknown resource", nodetest.Request{Method: post, Path: "/management/bookings/assign", Body: nodetest.Object{"bookingId": c.waiting, "resourceId": missing}}, 404, models.CodeResourceMissing, nil},
			{"an unknown type", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Joining(missing, nil)}, 404, models.CodeTypeMissing, nil},
			{"an unknown type, from a patient", nodetest.Request{Method: put, Path: "/customer/scheduling/new", Token: c.patientToken, Body: nodetest.Joining(missing, nil)}, 404, models.CodeTypeMissing, nil},
			{"an unknown filter", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Joining(c.kind, nodetest.Object{"resourceFilters": nodetest.Object{"resources": []string{c.room, missing}}})}, 404, models.CodeResourceMissing, nil},
			{"an unknown customer", nodetest.Request{Method: put, Path: "/management/scheduling/new", Body: nodetest.Joining(c.kind, nodetest.Object{"customerIdentifier": nodetest.Object{"id": missing}})}, 404, models.CodeCustomerMissing, nil},
			{"an unknown display", nodetest.Request{Method: http.MethodDelete, Path: "/management/displays", Body: nodetest.Object{"id": missing}}, 404, models.CodeDisplayMissing, nil},
			{"an unknown key", nodetest.Request{Method: http.MethodDelete, Path: "/management/apiKeys", Body: nodetest.Object{"name": "nobody"}}, 404, models.CodeKeyMissing, nil},
			{"a key's name in use", nodetest.Request{Method: post, Path: "/management/apiKeys", Body: nodetest.Object{"name": "desk"}}, 409, models.CodeKeyTaken, nil},
			{"an unknown organization", nodetest.Request{Method: post, Path: "/availability/types", Token: "-", App: missing}, 404, models.CodeOrgMissing, nil},
			{"no organization", nodetest.Request{Method: post, Path: "/availability/types", Token: "-"}, 400, models.CodeAppRequired, nil},

			{"a resource that does not serve the type", nodetest.Request{Method: post, Path: "/management/bookings/assign", Body: nodetest.Object{"bookingId": c.waiting, "resourceId": c.away}}, 400, models.CodeTypeMismatch, nil},
			{"cancelling what is being served", nodetest.Request{Method: post, Path: "/management/bookings/cancel", Body: nodetest.Object{"bookingId": c.serving}}, 409, models.CodeStage, nil},
			{"cancelling what is over", nodetest.Request{Method: post, Path: "/management/bookings/cancel", Body: nodetest.Object{"bookingId": c.ended}}, 409, models.CodeStage, nil},
			{"ending what waits", nodetest.Request{Method: post, Path: "/management/bookings/end", Body: nodetest.Object{"bookingId": c.waiting}}, 409, models.CodeStage, nil},
			{"deleting a type others wait for", nodetest.Request{Method: http.MethodDelete, Path: "/management/types/" + c.kind}, 409, models.CodeTypeInUse, nil},

			{"too much", nodetest.Request{Method: post, Path: "/management/bookings/assign", Body: nodetest.Joining(c.kind, nodetest.Object{"note": strings.Repeat("x", 1<<20)})}, 413, models.CodeTooLarge, nil},
			{"too much, in chunks", nodetest.Request{Method: post, Path: "/management/bookings/assign", Body: nodetest.Joining(c.kind, nodetest.Object{"note": strings.Repeat("x", 1<<20)}), Chunked: true}, 413, models.CodeTooLarge, nil},

			{"a wrong code", nodetest.Request{Method: post, Path: "/auth/otp/verify", Token: "-", App: c.ID, Body: nodetest.Object{"method": "sms", "phoneNumber": "+966500000099", "code": "1"}}, 401, models.CodeWrongCode, nil},
			{"a method that is none", nodetest.Request{Method: post, Path: "/auth/otp/request", Token: "-", App: c.ID, Body: nodetest.Object{"method": "pigeon"}}, 422, models.CodeInvalid, []string{"method"}},
			{"a refresh token that is none", nodetest.Request{Method: post, Path: "/auth/token", Token: "-", Body: nodetest.Object{"refreshToken": "nothing"}}, 401, models.CodeUnauthenticated, nil},
			{"no refresh token", nodetest.Request{Method: http.MethodGet, Path: "/auth/token", Token: "-"}, 422, models.CodeInvalid, []string{"refreshToken"}},
			{"an address that is none", nodetest.Request{Method: http.MethodGet, Path: "/management/nothing"}, 404, models.CodeRouteMissing, nil},
			{"a method not taken", nodetest.Request{Method: http.MethodPatch, Path: "/management/types"}, 405, models.CodeMethod, nil},
		} {
			r := test.r
			switch r.Token {
			case "":
				r.Token = c.Key
			case "-":
				r.Token = ""
			}
			a := h.Unchanged(r)
			t.Log(test.name)
			a.Refused(test.status, test.code)
			assert.ElementsMatch(t, test.fields, a.WrongFields(), "%s: %s", test.name, a.Raw)
		}

		t.Log("a body of exactly 1 MiB is read")
		text := `{"resourceId":"` + missing + `"}`
		h.Unchanged(nodetest.Request{Method: post, Path: "/management/queue/next", Token: c.Key, Body: text + strings.Repeat(" ", 1<<20-len(text))}).
			Refused(http.StatusNotFound, models.CodeResourceMissing)
		assert.NotContains(t, h.Log.String(), `"level":"ERROR"`)
	})
}

// TestFieldsAreExplainedInArabic asks for answers in Arabic.
func TestFieldsAreExplainedInArabic(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	c := h.NewClinic()
	for name, body := range map[string]nodetest.Object{
		"missing": {}, "unknown": {"method": "fax"}, "wrong": {"method": "sms", "phoneNumber": "12"}, "of another type": {"method": 1},
	} {
		a := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Lang: "ar", Body: body})
		a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		for _, text := range append(a.Pluck("errors", "message"), a.Str("title"), a.Str("detail")) {
			assert.Regexp(t, `^[\p{Arabic}\s،.]+$`, text, name)
		}
	}
}

func TestABodyThatSaysItIsTooLargeIsNotAwaited(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	c := h.NewClinic()
	caller, err := new(net.Dialer).DialContext(context.Background(), "tcp", strings.TrimPrefix(h.URL, "http://"))
	require.NoError(t, err)
	defer func() { assert.NoError(t, caller.Close()) }()
	_, err = fmt.Fprintf(caller, "POST /management/types HTTP/1.1\r\nHost: x\r\nX-API-KEY: %s\r\nContent-Length: 10000000000\r\n\r\n{", c.Key)
	require.NoError(t, err)
	res, err := http.ReadResponse(bufio.NewReader(caller), nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestEntityTooLarge, res.StatusCode)
	assert.NoError(t, res.Body.Close())
}

func TestThingsOfOtherOrganizationsAreNotFound(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		theirs := fill(h)
		ours := h.NewClinic()
		kind := ours.NewType(nil)
		room := ours.NewResource(nil, kind)
		waiting := ours.Join(kind, nil).Str("id")
		patient := ours.Patient("+966500000021")
		get, post, put, del := http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
		for _, test := range []struct {
			method, path string
			body         any
			status       int
			code         models.Code
		}{
			{get, "/management/bookings/" + theirs.waiting, nil, 404, models.CodeBookingNotFound},
			{get, "/management/types/" + theirs.kind, nil, 404, models.CodeTypeMissing},
			{put, "/management/types/" + theirs.kind, nodetest.Object{"name": "Ours"}, 404, models.CodeTypeMissing},
			{del, "/management/types/" + theirs.other, nil, 404, models.CodeTypeMissing},
			{get, "/management/resources/" + theirs.room, nil, 404, models.CodeResourceMissing},
			{put, "/management/resources/" + theirs.room, nodetest.Object{"name": "Ours"}, 404, models.CodeResourceMissing},
			{del, "/management/resources/" + theirs.room, nil, 404, models.CodeResourceMissing},
			{post, "/management/resources", nodetest.Object{"name": "Ours", "types": []string{theirs.kind}}, 422, models.CodeInvalid},
			{get, "/management/customers/" + theirs.person, nil, 404, models.CodeCustomerMissing},
			{put, "/management/customers/" + theirs.person, nodetest.Object{"firstName": "Ours"}, 404, models.CodeCustomerMissing},
			{get, "/management/queue?resourceId=" + theirs.room, nil, 404, models.CodeResourceMissing},
			{get, "/management/bookings/unassigned?resourceId=" + theirs.room, nil, 404, models.CodeResourceMissing},
			{post, "/management/queue/next", nodetest.Object{"resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/queue/pause", nodetest.Object{"resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/queue/resume", nodetest.Object{"resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/bookings/assign", nodetest.Object{"bookingId": theirs.waiting, "resourceId": room}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/assign", nodetest.Object{"bookingId": waiting, "resourceId": theirs.room}, 404, models.CodeResourceMissing},
			{post, "/management/bookings/cancel", nodetest.Object{"bookingId": theirs.waiting}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/start", nodetest.Object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/end", nodetest.Object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/noShow", nodetest.Object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/recall", nodetest.Object{"bookingId": theirs.serving}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/hold", nodetest.Object{"bookingId": theirs.waiting}, 404, models.CodeBookingNotFound},
			{post, "/management/bookings/return", nodetest.Object{"bookingId": theirs.waiting}, 404, models.CodeBookingNotFound},
			{put, "/management/scheduling/new", nodetest.Joining(theirs.kind, nil), 404, models.CodeTypeMissing},
			{put, "/management/scheduling/new", nodetest.Joining(kind, nodetest.Object{"resourceFilters": nodetest.Object{"resource": theirs.room}}), 404, models.CodeResourceMissing},
			{put, "/management/scheduling/new", nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"id": theirs.person}}), 404, models.CodeCustomerMissing},
			{post, "/management/displays", nodetest.Object{"name": "Ours", "resourceIds": []string{theirs.room}}, 404, models.CodeResourceMissing},
			{del, "/management/displays", nodetest.Object{"id": theirs.display}, 404, models.CodeDisplayMissing},
			{get, "/management/organizations/" + theirs.ID, nil, 404, models.CodeOrgMissing},
		} {
			h.Unchanged(nodetest.Request{Method: test.method, Path: test.path, Token: ours.Key, Body: test.body}).Refused(test.status, test.code)
			if !strings.HasPrefix(test.path, "/management/organizations") {
				// An account key that names our organization is held to it, and so is ours that names theirs.
				h.Unchanged(nodetest.Request{Method: test.method, Path: test.path, Token: nodetest.BootstrapKey, App: ours.ID, Body: test.body}).Refused(test.status, test.code)
				h.Unchanged(nodetest.Request{Method: test.method, Path: test.path, Token: ours.Key, App: theirs.ID, Body: test.body}).
					Refused(http.StatusForbidden, models.CodeForbidden)
			}
		}
		// Patients: another's booking, here or elsewhere, looks like none.
		for _, id := range []string{theirs.mine, waiting} {
			h.Unchanged(nodetest.Request{Method: get, Path: "/customer/bookings/" + id, Token: patient}).Refused(404, models.CodeBookingNotFound)
			h.Unchanged(nodetest.Request{Method: post, Path: "/customer/bookings/cancel", Token: patient, Body: nodetest.Object{"bookingId": id}}).Refused(404, models.CodeBookingNotFound)
		}
		h.Unchanged(nodetest.Request{Method: get, Path: "/availability/resources/" + theirs.room, App: ours.ID}).Refused(404, models.CodeResourceMissing)
		h.Unchanged(nodetest.Request{Method: put, Path: "/customer/scheduling/new", Token: patient, App: theirs.ID, Body: nodetest.Joining(theirs.kind, nil)}).
			Refused(http.StatusForbidden, models.CodeForbidden)
		// Lists show our own only.
		for _, path := range []string{"/management/types", "/management/resources", "/management/displays", "/management/customers", "/management/bookings?limit=500"} {
			for _, id := range ours.Staff(get, path, nil).OK().Pluck("result", "id") {
				assert.NotContains(t, []string{theirs.kind, theirs.room, theirs.display, theirs.person, theirs.waiting}, id)
			}
		}
		assert.Equal(t, []string{ours.ID}, ours.Staff(get, "/management/organizations", nil).OK().Pluck("result", "id"))
		// A patient's refresh token is of no use elsewhere.
		refresh := ours.SignIn("+966500000022", false).Str("refreshToken")
		h.Unchanged(nodetest.Request{Method: post, Path: "/auth/token", App: theirs.ID, Body: nodetest.Object{"refreshToken": refresh}}).Refused(401, models.CodeUnauthenticated)
	})
}
