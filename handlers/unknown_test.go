package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// fieldErrors are the messages of a refusal by the fields they are about.
func fieldErrors(a nodetest.Response) map[string]string {
	a.T.Helper()
	messages := map[string]string{}
	for _, e := range a.List("errors") {
		field, _ := nodetest.At(e, "field").(string)
		messages[field], _ = nodetest.At(e, "message").(string)
	}
	return messages
}

func TestUnknownMembersAreRefused(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		joined := func(more nodetest.Object) nodetest.Object { return nodetest.Joining(kind, more) }
		messages := func(of string, more nodetest.Object) nodetest.Object {
			return nodetest.Object{"templates": nodetest.Object{of: nodetest.Object{"en": more}}}
		}
		post, put := http.MethodPost, http.MethodPut
		for _, test := range []struct {
			name, method, path string
			body               any
			errors             map[string]string
		}{
			{
				"another operation's name", put, "/management/scheduling/new", joined(nodetest.Object{"customerIdentifier": nodetest.Object{"phoneNumber": "+966500000001"}}),
				map[string]string{"customerIdentifier.phoneNumber": "Unknown member; did you mean phone?"},
			},
			{
				"a slip", put, "/management/scheduling/new", joined(nodetest.Object{"resourceFilter": nodetest.Object{}, "priorty": 1}),
				map[string]string{"resourceFilter": "Unknown member; did you mean resourceFilters?", "priorty": "Unknown member; did you mean priority?"},
			},
			{
				"in filters", post, "/availability/types", nodetest.Object{"resourceFilters": nodetest.Object{"resourceIds": []string{room}}},
				map[string]string{"resourceFilters.resourceIds": "Unknown member; did you mean resources?"},
			},
			{
				"another style", put, "/management/types/" + kind, nodetest.Object{"nameTranslations": nodetest.Object{"en": "A"}},
				map[string]string{"nameTranslations": "Unknown member; did you mean name_translations?"},
			},
			{
				"a language we do not speak", put, "/management/resources/" + room, nodetest.Object{"name_translations": nodetest.Object{"en": "A", "fr": "B"}},
				map[string]string{"name_translations.fr": "Unknown member."},
			},
			{
				"other case", post, "/management/types", `{"Name": "A", "MINUTES": 5}`,
				map[string]string{
					"Name": "Unknown member; did you mean name?", "MINUTES": "Unknown member; did you mean minutes?",
				},
			},
			{
				"both cases", put, "/management/types/" + kind, `{"minutes": 5, "Minutes": 6}`,
				map[string]string{"Minutes": "Unknown member; did you mean minutes?"},
			},
			{
				"nothing like it", put, "/management/types/" + kind, nodetest.Object{"xyzzy": nil},
				map[string]string{"xyzzy": "Unknown member."},
			},
			{
				"with a dot", put, "/management/types/" + kind, nodetest.Object{"minutes.x": 1},
				map[string]string{"minutes.x": "Unknown member; did you mean minutes?"},
			},
			{
				"within names of the caller's", put, "/management/messages", messages("bookingCalled", nodetest.Object{"txt": "A"}),
				map[string]string{"templates.bookingCalled.en.txt": "Unknown member; did you mean text?"},
			},
			{
				"a verb", post, "/management/queue/next", nodetest.Object{"resourceId": room, "resourceID": room},
				map[string]string{"resourceID": "Unknown member; did you mean resourceId?"},
			},
		} {
			a := h.Unchanged(nodetest.Request{Method: test.method, Path: test.path, Token: c.Key, App: c.ID, Body: test.body})
			t.Log(test.name)
			a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, test.errors, fieldErrors(a), test.name)
		}
		arabic := h.Send(nodetest.Request{Method: put, Path: "/management/types/" + kind, Token: c.Key, Lang: "ar", Body: nodetest.Object{"color_": "A"}})
		assert.Equal(t, map[string]string{"color_": "هذا الحقل غير معروف."}, fieldErrors(arabic))
	})
}

// What the organization makes up is free, and so is what the API's description
// names though nothing uses it yet.
func TestFreeMembersAreAccepted(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		free := nodetest.Object{"Any": nodetest.Object{"thing": []any{1.5, "two"}}, "any": nil}
		kind := c.NewType(nodetest.Object{
			"schedule": free, "timeOptions": free, "photos": []nodetest.Object{free}, "leaveMinutesBefore": 5, "leaveMinutesAfter": 5, "priceIncreaseDays": 1,
		})
		room := c.NewResource(nodetest.Object{"id": "res_12345abcde", "meta": free, "photo": free, "photos": []nodetest.Object{free}}, kind)
		assert.NotEqual(t, "res_12345abcde", room)
		assert.Equal(t, free, c.Staff(http.MethodGet, "/management/resources/"+room, nil).OK().At("result.meta"))
		named := nodetest.Object{"showAll": true, "resourceFiltersCustomFields": free, "timeAdjustersCustomFields": free, "bookingInfoCustomFields": free}
		assert.Equal(t, free, c.Join(kind, named).At("info"))
		patient := c.Patient("+966500000031")
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: nodetest.Joining(kind, named)}).OK()
		profile := nodetest.Object{"email": "mona@example.com", "firstName": "Mona", "lastName": "Ali", "note": "Knocks", "data": free}
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/profile", Token: patient, Body: profile}).OK()
		for _, what := range []string{"types", "resources"} {
			body := nodetest.Object{"showAll": true, "resourceFiltersCustomFields": free, "resourceFilters": nodetest.Object{}, "type": kind, "limit": 10}
			h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/" + what, App: c.ID, Body: body}).OK()
		}
		c.Staff(http.MethodPut, "/management/organizations/"+c.ID, nodetest.Object{"businessCustomConfig": free}).OK()
	})
}

// Requests are closed in the API's description, answers are not: later versions
// may add to them.
func TestRequestsAreClosedAndAnswersAreOpen(t *testing.T) {
	t.Parallel()
	h := nodetest.Start(t, nodetest.Embedded)
	doc := document(h)
	asked, answered := map[string]bool{}, map[string]bool{}
	for path := range doc.Members("paths") {
		for _, op := range operationsAt(doc, path) {
			schemasOf(doc, nodetest.At(op, "requestBody"), asked)
			schemasOf(doc, nodetest.At(op, "responses"), answered)
		}
	}
	assert.NotEmpty(t, asked)
	for name := range asked {
		schema := doc.Members("components.schemas." + name)
		if schema["properties"] != nil {
			assert.Equal(t, false, schema["additionalProperties"], name)
		}
	}
	for name := range answered {
		assert.NotEqual(t, false, doc.Members("components.schemas." + name)["additionalProperties"], name)
	}
}
