package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

// fieldErrors are the messages of a refusal by the fields they are about.
func (a answer) fieldErrors() map[string]string {
	a.t.Helper()
	messages := map[string]string{}
	for _, e := range a.list("errors") {
		field, _ := at(e, "field").(string)
		messages[field], _ = at(e, "message").(string)
	}
	return messages
}

func TestUnknownMembersAreRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		joined := func(more object) object { return joining(kind, more) }
		messages := func(of string, more object) object {
			return object{"templates": object{of: object{"en": more}}}
		}
		post, put := http.MethodPost, http.MethodPut
		for _, test := range []struct {
			name, method, path string
			body               any
			errors             map[string]string
		}{
			{
				"another operation's name", put, "/management/scheduling/new", joined(object{"customerIdentifier": object{"phoneNumber": "+966500000001"}}),
				map[string]string{"customerIdentifier.phoneNumber": "Unknown member; did you mean phone?"},
			},
			{
				"a slip", put, "/management/scheduling/new", joined(object{"resourceFilter": object{}, "priorty": 1}),
				map[string]string{"resourceFilter": "Unknown member; did you mean resourceFilters?", "priorty": "Unknown member; did you mean priority?"},
			},
			{
				"in filters", post, "/availability/types", object{"resourceFilters": object{"resourceIds": []string{room}}},
				map[string]string{"resourceFilters.resourceIds": "Unknown member; did you mean resources?"},
			},
			{
				"another style", put, "/management/types/" + kind, object{"nameTranslations": object{"en": "A"}},
				map[string]string{"nameTranslations": "Unknown member; did you mean name_translations?"},
			},
			{
				"a language we do not speak", put, "/management/resources/" + room, object{"name_translations": object{"en": "A", "fr": "B"}},
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
				"nothing like it", put, "/management/types/" + kind, object{"xyzzy": nil},
				map[string]string{"xyzzy": "Unknown member."},
			},
			{
				"with a dot", put, "/management/types/" + kind, object{"minutes.x": 1},
				map[string]string{"minutes.x": "Unknown member; did you mean minutes?"},
			},
			{
				"within names of the caller's", put, "/management/messages", messages("bookingCalled", object{"txt": "A"}),
				map[string]string{"templates.bookingCalled.en.txt": "Unknown member; did you mean text?"},
			},
			{
				"a verb", post, "/management/queue/next", object{"resourceId": room, "resourceID": room},
				map[string]string{"resourceID": "Unknown member; did you mean resourceId?"},
			},
		} {
			a := h.unchanged(request{method: test.method, path: test.path, token: c.key, app: c.id, body: test.body})
			t.Log(test.name)
			a.refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, test.errors, a.fieldErrors(), test.name)
		}
		arabic := h.send(request{method: put, path: "/management/types/" + kind, token: c.key, lang: "ar", body: object{"color_": "A"}})
		assert.Equal(t, map[string]string{"color_": "هذا الحقل غير معروف."}, arabic.fieldErrors())
	})
}

// What the organization makes up is free, and so is what the API's description
// names though nothing uses it yet.
func TestFreeMembersAreAccepted(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		free := object{"Any": object{"thing": []any{1.5, "two"}}, "any": nil}
		kind := c.newType(object{
			"schedule": free, "timeOptions": free, "photos": []object{free}, "leaveMinutesBefore": 5, "leaveMinutesAfter": 5, "priceIncreaseDays": 1,
		})
		room := c.newResource(object{"id": "res_12345abcde", "meta": free, "photo": free, "photos": []object{free}}, kind)
		assert.NotEqual(t, "res_12345abcde", room)
		assert.Equal(t, free, c.staff(http.MethodGet, "/management/resources/"+room, nil).ok().at("result.meta"))
		named := object{"showAll": true, "resourceFiltersCustomFields": free, "timeAdjustersCustomFields": free, "bookingInfoCustomFields": free}
		assert.Equal(t, free, c.join(kind, named).at("info"))
		patient := c.patient("+966500000031")
		h.send(request{method: http.MethodPut, path: "/customer/scheduling/new", token: patient, body: joining(kind, named)}).ok()
		profile := object{"email": "mona@example.com", "firstName": "Mona", "lastName": "Ali", "note": "Knocks", "data": free}
		h.send(request{method: http.MethodPut, path: "/customer/profile", token: patient, body: profile}).ok()
		for _, what := range []string{"types", "resources"} {
			body := object{"showAll": true, "resourceFiltersCustomFields": free, "resourceFilters": object{}, "type": kind, "limit": 10}
			h.send(request{method: http.MethodPost, path: "/availability/" + what, app: c.id, body: body}).ok()
		}
		c.staff(http.MethodPut, "/management/organizations/"+c.id, object{"businessCustomConfig": free}).ok()
	})
}

// Requests are closed in the API's description, answers are not: later versions
// may add to them.
func TestRequestsAreClosedAndAnswersAreOpen(t *testing.T) {
	t.Parallel()
	h := newHouse(t, embedded)
	doc := h.document()
	asked, answered := map[string]bool{}, map[string]bool{}
	for path := range doc.members("paths") {
		for _, op := range doc.operationsAt(path) {
			doc.schemasOf(at(op, "requestBody"), asked)
			doc.schemasOf(at(op, "responses"), answered)
		}
	}
	assert.NotEmpty(t, asked)
	for name := range asked {
		schema := doc.members("components.schemas." + name)
		if schema["properties"] != nil {
			assert.Equal(t, false, schema["additionalProperties"], name)
		}
	}
	for name := range answered {
		assert.NotEqual(t, false, doc.members("components.schemas." + name)["additionalProperties"], name)
	}
}
