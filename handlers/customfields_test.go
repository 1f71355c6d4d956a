package handlers_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

type object = nodetest.Object

// public returns the definition of a field that customers see.
func public(id, fieldType string, more object) object {
	field := object{"id": id, "name": "The " + id, "type": fieldType, "visibility": "public"}
	for k, v := range more {
		field[k] = v
	}
	return field
}

// internal is public for a field that only staff see.
func internal(id, fieldType string, more object) object {
	field := public(id, fieldType, more)
	delete(field, "visibility")
	return field
}

// define sets the custom fields of a kind.
func define(c *nodetest.Clinic, kind string, fields ...object) nodetest.Response {
	c.T.Helper()
	if fields == nil {
		fields = []object{}
	}
	return c.Staff(put, "/management/customFields/"+kind, fields)
}

// listed returns the ids of the fields of a public list.
func listed(c *nodetest.Clinic, list string) []string {
	c.T.Helper()
	return c.Send(nodetest.Request{Method: get, Path: "/customFields/" + list, App: c.ID}).OK().Pluck("result", "id")
}

func TestCustomFieldsAreListedByWhatTheyDo(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit, scan := c.NewType(nil), c.NewType(nil)
		filters := object{"filterResources": true, "icon": "star"}
		choice := func(more object) []any {
			more["value"] = "a"
			return []any{more, object{"value": "b", "name": "B", "name_translations": object{"en": "B", "ar": "ب"}}}
		}
		a := define(c, "booking",
			public("specialty", "options", object{"info": filters, "options": choice(object{})}),
			public("guests", "number", object{"minutes": 15, "price": "10", "optional": true}),
			public("care", "options", object{"options": choice(object{"minutes": 30}), "types": []string{visit}}),
			public("priced", "options", object{"options": choice(object{"price": "5.00"})}),
			public("reason", "text", object{"name_translations": object{"en": "Reason", "ar": "السبب"}}),
			public("age", "number", nil),
			public("hint", "paragraph-readonly", object{"description": "Come early."}),
			public("scanned", "photo", object{"types": []string{scan}}),
			public("off", "text", object{"enabled": false}),
			internal("chart", "text", nil),
			internal("secret", "text", object{"info": filters}),
			internal("overtime", "number", object{"minutes": 5}),
		).OK()
		assert.Equal(t, "10.00", a.Str("result.1.price"))
		assert.Equal(t, "star", a.Str("result.0.info.icon"))
		assert.Equal(t, true, a.At("result.4.enabled"))
		assert.Equal(t, false, a.At("result.4.optional"))
		assert.Equal(t, "providerOnly", a.Str("result.9.visibility"))
		assert.Equal(t, a.At("result"), c.Staff(get, "/management/customFields/booking", nil).OK().At("result"))
		assert.Equal(t, a.At("result"), c.Staff(put, "/management/customFields/booking", a.At("result")).OK().At("result"), "what is answered can be sent")

		assert.Equal(t, []string{"specialty"}, listed(c, "resourceFilters"))
		assert.Equal(t, []string{"specialty"}, listed(c, "resourceFilters?type="+scan))
		assert.Equal(t, []string{"guests", "care", "priced"}, listed(c, "timeAdjusters?type="+visit))
		assert.Equal(t, []string{"guests", "priced"}, listed(c, "timeAdjusters?type="+scan))
		assert.Equal(t, []string{"reason", "age", "hint"}, listed(c, "bookingInfo?type="+visit))
		assert.Equal(t, []string{"reason", "age", "hint", "scanned"}, listed(c, "bookingInfo?type="+scan))

		arabic := h.Send(nodetest.Request{Method: get, Path: "/customFields/bookingInfo?type=" + visit, App: c.ID, Lang: "ar"}).OK()
		assert.Equal(t, "السبب", arabic.Str("result.0.name"))
		assert.Equal(t, "Come early.", arabic.Str("result.2.description"))
		options := h.Send(nodetest.Request{Method: get, Path: "/customFields/resourceFilters", App: c.ID, Lang: "ar"}).OK()
		assert.Equal(t, "a", options.Str("result.0.options.0.name"), "the value, where there is no name")
		assert.Equal(t, "ب", options.Str("result.0.options.1.name"))

		for _, list := range []string{"timeAdjusters", "bookingInfo"} {
			h.Send(nodetest.Request{Method: get, Path: "/customFields/" + list, App: c.ID}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			h.Send(nodetest.Request{Method: get, Path: "/customFields/" + list + "?type=none", App: c.ID}).Refused(http.StatusNotFound, models.CodeTypeMissing)
		}
	})
}

func TestCoreCustomFieldsAreAlwaysThere(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		core := []string{"phoneNumber", "firstName", "lastName", "email"}
		assert.Equal(t, core, listed(c, "customer"))
		fields := c.Staff(get, "/management/customFields/customer", nil).OK()
		assert.Equal(t, core, fields.Pluck("result", "id"))
		for i, optional := range []bool{false, true, true, true} {
			assert.Equal(t, optional, fields.At("result."+strconv.Itoa(i)+".optional"), core[i])
			assert.Equal(t, true, fields.At("result."+strconv.Itoa(i)+".enabled"), core[i])
		}
		assert.Equal(t, "phone", fields.Str("result.0.textType"))
		assert.Equal(t, "email", fields.Str("result.3.textType"))

		changed := define(c, "customer", public("allergies", "paragraph", nil), object{"id": "firstName", "name": "Given name", "type": "text"}).OK()
		assert.Equal(t, []string{"phoneNumber", "lastName", "email", "allergies", "firstName"}, changed.Pluck("result", "id"))
		assert.Equal(t, []string{"phoneNumber", "lastName", "email", "allergies", "firstName"}, listed(c, "customer"))
		emptied := define(c, "customer").OK()
		assert.Equal(t, core, emptied.Pluck("result", "id"))
		assert.Equal(t, "Given name", emptied.Str("result.1.name"), "a core field that is omitted stays as it was")

		phone, email := object{"id": "phoneNumber", "name": "Phone", "type": "text"}, object{"id": "email", "name": "E-mail", "type": "text"}
		with := func(field object, more object) object {
			out := object{}
			for _, from := range []object{field, more} {
				for k, v := range from {
					out[k] = v
				}
			}
			return out
		}
		before := c.Staff(get, "/management/customFields/customer", nil).OK().At("result")
		for _, test := range []struct {
			fields []object
			field  string
		}{
			{[]object{with(phone, object{"enabled": false}), with(email, object{"enabled": false})}, "phoneNumber"},
			{[]object{with(phone, object{"optional": true}), with(email, object{"optional": true})}, "phoneNumber"},
			{[]object{with(phone, object{"optional": true})}, "phoneNumber"}, // e-mail is optional already
			{[]object{with(phone, object{"optional": true}), with(email, object{"enabled": false})}, "phoneNumber"},
			{[]object{with(phone, object{"enabled": false})}, "email"},
			{[]object{with(email, object{"textType": "phone"})}, "[0].type"},
			{[]object{{"id": "firstName", "name": "First", "type": "number"}}, "[0].type"},
		} {
			a := define(c, "customer", test.fields...)
			a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{test.field}, a.WrongFields(), "%v", test.fields)
		}
		assert.Equal(t, before, c.Staff(get, "/management/customFields/customer", nil).OK().At("result"), "nothing changed")
		define(c, "customer", with(phone, object{"enabled": false}), with(email, object{"optional": false})).OK()
		assert.Equal(t, []string{"firstName", "lastName", "email"}, listed(c, "customer"))
	})
}

func TestAWrongCustomFieldIsRefusedWithItsPlaceInTheList(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		define(c, "booking", public("reason", "text", nil)).OK()
		for _, test := range []struct {
			fields []object
			wrong  []string
		}{
			{[]object{{"name": "A", "type": "text"}}, []string{"[0].id"}},
			{[]object{public("a", "text", nil), public("b", "date", nil)}, []string{"[1].type"}},
			{[]object{public("a", "text", object{"visible": true})}, []string{"[0].visible"}},
			{[]object{public("a", "text", nil), public("a", "text", nil)}, []string{"[1].id"}},
			{[]object{public("a", "options", nil), public("b", "text", object{"conditions": object{"c": "d"}})}, []string{"[0].options", "[1].conditions.c"}},
			{[]object{public("a", "text", object{"types": []string{"none"}})}, []string{"[0].types[0]"}},
			{[]object{public("a", "number", object{"price": "free"})}, []string{"[0].price"}},
		} {
			a := define(c, "booking", test.fields...)
			a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, test.wrong, a.WrongFields(), "%s", a.Raw)
		}
		assert.Equal(t, []string{"reason"}, c.Staff(get, "/management/customFields/booking", nil).OK().Pluck("result", "id"), "nothing changed")
	})
}

func TestAFieldKeepsADeletedType(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nil)
		fields := define(c, "booking", public("reason", "text", object{"types": []string{visit}})).OK().At("result")
		c.Staff(del, "/management/types/"+visit, nil).OK()
		c.Staff(put, "/management/customFields/booking", fields).OK()
		require.Empty(t, define(c, "booking").OK().List("result"))
		c.Staff(put, "/management/customFields/booking", fields).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
	})
}
