package handlers_test

import (
	"net/http"
	"slices"
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

// asPatient makes a request with the token of a customer.
func asPatient(c *nodetest.Clinic, token, method, path string, body any) nodetest.Response {
	c.T.Helper()
	return c.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body})
}

func TestValuesOfCustomFieldsAreCheckedAllAtOnce(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nil)
		c.NewResource(nil, visit)
		patient := c.Patient("+966500000301")
		anything := object{"bookingInfoCustomFields": object{"any": "thing"}}
		assert.Equal(t, "thing", c.Schedule(visit, 900, anything).OK().Str("info.any"), "while no field is defined")

		define(c, "booking",
			public("reason", "text", nil),
			public("phone", "text", object{"textType": "phone", "optional": true, "allowedCountries": "specific", "allowedCountriesList": []string{"SA"}}),
			public("pregnant", "options", object{"options": []any{object{"value": "yes"}, object{"value": "no"}}}),
			public("month", "number", object{"conditions": object{"pregnant": "yes"}}),
			public("guests", "number", object{"minutes": 15, "optional": true}),
			internal("chart", "text", object{"optional": true}),
		).OK()
		joining := func(more object) object { return nodetest.Joining(visit, more) }
		booked := nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE organization_id = ?", c.ID)
		for _, test := range []struct {
			body  object
			wrong []string
		}{
			{object{}, []string{"bookingInfoCustomFields.pregnant", "bookingInfoCustomFields.reason"}},
			{object{"bookingInfoCustomFields": object{"reason": 5, "pregnant": "maybe", "phone": "+442079460018", "made up": 1}, "timeAdjustersCustomFields": object{"guests": "two"}},
				[]string{
					"bookingInfoCustomFields.made up", "bookingInfoCustomFields.phone", "bookingInfoCustomFields.pregnant",
					"bookingInfoCustomFields.reason", "timeAdjustersCustomFields.guests",
				}},
			{object{"bookingInfoCustomFields": object{"reason": "cough", "pregnant": "yes"}}, []string{"bookingInfoCustomFields.month"}},
			{object{"bookingInfoCustomFields": object{"reason": "cough", "pregnant": "no", "month": 3}}, []string{"bookingInfoCustomFields.month"}},
			{object{"bookingInfoCustomFields": object{"reason": "cough", "pregnant": "no", "chart": "B"}}, []string{"bookingInfoCustomFields.chart"}},
			{object{"bookingInfoCustomFields": object{"reason": "cough", "pregnant": "no", "guests": 2}}, []string{"bookingInfoCustomFields.guests"}},
			{object{"bookingInfoCustomFields": object{"reason": "cough", "pregnant": "no"}, "timeAdjustersCustomFields": object{"guests": 97}}, []string{"timeAdjustersCustomFields"}},
		} {
			for _, body := range []object{joining(test.body), nodetest.Appointment(visit, nodetest.Day(3), 1000, test.body)} {
				a := asPatient(c, patient, put, "/customer/scheduling/new", body)
				a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
				assert.Equal(t, test.wrong, a.WrongFields(), "%s", a.Raw)
			}
		}
		arabic := c.Send(nodetest.Request{Method: put, Path: "/customer/scheduling/new", Token: patient, Lang: "ar", Body: joining(object{"bookingInfoCustomFields": object{"none": 1}})})
		assert.Equal(t, []string{"هذا الحقل غير معروف.", "هذا الحقل مطلوب.", "هذا الحقل مطلوب."}, arabic.Pluck("errors", "message"))
		assert.Equal(t, booked, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE organization_id = ?", c.ID), "nothing changed")

		// The desk joins a queue without them, and makes no appointment without them.
		c.Join(visit, nil)
		a := c.Schedule(visit, 1000, object{"bookingInfoCustomFields": object{"pregnant": "no"}})
		a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Equal(t, []string{"bookingInfoCustomFields.reason"}, a.WrongFields())
		made := c.Schedule(visit, 1000, object{"bookingInfoCustomFields": object{"reason": "cough", "pregnant": "yes", "month": 3, "phone": "0500000001", "chart": "B"}}).OK()
		assert.Equal(t, object{"reason": "cough", "pregnant": "yes", "month": 3.0, "phone": "+966500000001", "chart": "B"}, made.At("info"))
	})
}

func TestPatientsDoNotSeeWhatOnlyStaffSee(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nil)
		c.NewResource(nil, visit)
		patient := c.Patient("+966500000302")
		r := nodetest.NewReceiver(t, nil)
		c.Hook("newAppointment", r.URL, nil)
		secret := internal("chart", "text", object{"optional": true})
		define(c, "booking", public("reason", "text", object{"optional": true}), secret).OK()
		define(c, "customer", public("age", "number", object{"optional": true}), secret).OK()
		made := c.Schedule(visit, 1000, object{
			"customerIdentifier": object{"phone": "+966500000302"}, "bookingInfoCustomFields": object{"reason": "cough", "chart": "Zanzibar"},
		}).OK()
		id, ticket := made.Str("id"), made.Str("ticketToken")
		assert.Equal(t, "Zanzibar", made.Str("info.chart"))
		assert.Contains(t, string(r.Await(1)[0].Raw), "Zanzibar")
		c.Staff(put, "/management/customers/"+made.Str("customerId"), object{"data": object{"age": 30, "chart": "Zanzibar"}}).OK()

		hidden := func() {
			t.Helper()
			for _, path := range []string{"/customer/bookings", "/customer/bookings/" + id, "/customer/profile", "/customer/profile/export"} {
				a := asPatient(c, patient, get, path, nil).OK()
				assert.NotContains(t, string(a.Raw), "Zanzibar", path)
				assert.NotContains(t, string(a.Raw), "chart", path)
			}
			assert.NotContains(t, string(asPatient(c, ticket, get, "/customer/bookings/"+id, nil).OK().Raw), "Zanzibar")
			assert.Contains(t, string(c.Staff(get, "/management/bookings/"+id, nil).OK().Raw), "Zanzibar")
		}
		hidden()
		assert.Equal(t, object{"reason": "cough"}, asPatient(c, patient, get, "/customer/bookings/"+id, nil).OK().At("result.info"))

		// They can neither send them nor remove them.
		a := asPatient(c, patient, put, "/customer/profile", object{"data": object{"chart": "mine"}})
		a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Equal(t, []string{"data.chart"}, a.WrongFields())
		assert.Equal(t, object{"age": 31.0}, asPatient(c, patient, put, "/customer/profile", object{"data": object{"age": 31}}).OK().At("result.data"))
		kept := c.Staff(get, "/management/customers/"+made.Str("customerId"), nil).OK()
		assert.Equal(t, object{"age": 31.0, "chart": "Zanzibar"}, kept.At("result.data"))

		moved := asPatient(c, patient, put, "/customer/scheduling/new", nodetest.Appointment(visit, nodetest.Day(3), 1100, object{
			"rescheduleBookingId": id, "bookingInfoCustomFields": object{"reason": "fever"},
		})).OK()
		assert.Equal(t, object{"reason": "fever"}, moved.At("result.info"))
		id, ticket = moved.Str("result.id"), moved.Str("result.ticketToken")
		assert.Equal(t, object{"reason": "fever", "chart": "Zanzibar"}, c.Staff(get, "/management/bookings/"+id, nil).OK().At("result.info"))
		hidden()
		define(c, "booking", public("reason", "text", object{"optional": true})).OK()
		define(c, "customer").OK()
		hidden() // also after the field was deleted
		define(c, "booking").OK()
		hidden()
	})
}

func TestAdjustersMakeAVisitLonger(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(object{"minutes": 30})
		room := c.NewResource(nil, visit)
		c.Staff(put, "/management/timeRules/"+room, object{"rules": []any{rule(900, 1200)}}).OK()
		define(c, "booking",
			public("guests", "number", object{"minutes": 15, "optional": true}),
			public("care", "options", object{"optional": true, "options": []any{object{"value": "deep", "minutes": 30}, object{"value": "none"}}}),
			internal("overtime", "number", object{"minutes": 1, "optional": true}),
		).OK()
		day := nodetest.Day(3)
		adjusted := object{"timeAdjustersCustomFields": object{"guests": 2, "care": "deep"}}
		assert.Equal(t, []int{900, 1000, 1100}, times(c, visit, day, nil))
		assert.Equal(t, []int{900, 1000}, times(c, visit, day, adjusted), "90 minutes")
		found := c.Send(nodetest.Request{Method: post, Path: "/availability/times", App: c.ID, Body: object{"type": visit, "from": day, "to": day, "timeAdjustersCustomFields": object{"guests": 2, "care": "deep"}}}).OK()
		assert.Equal(t, 90, found.Num("result.0.times.0.duration"))
		for field, value := range map[string]any{"guests": "two", "care": "more", "overtime": 5, "made up": 1} {
			a := c.Send(nodetest.Request{Method: post, Path: "/availability/times", App: c.ID, Body: object{"type": visit, "timeAdjustersCustomFields": object{field: value}}})
			a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{"timeAdjustersCustomFields." + field}, a.WrongFields())
		}
		made := c.Schedule(visit, 900, object{"timeAdjustersCustomFields": object{"guests": 2, "care": "deep", "overtime": 10}}).OK()
		assert.Equal(t, 100, made.Num("duration"))
		assert.Equal(t, []int{1100}, times(c, visit, day, nil))
		c.Schedule(visit, 1030, nil).Refused(http.StatusConflict, models.CodeSlotTaken)

		moved := c.Schedule(visit, 1000, object{"rescheduleBookingId": made.Str("id")}).OK()
		assert.Equal(t, 100, moved.Num("duration"), "the values of before count again")
		assert.Empty(t, times(c, visit, day, object{"rescheduleBookingId": moved.Str("id"), "showOclock": false, "showFixedTimes": "1030"}), "until ten past twelve")
		assert.Equal(t, []int{1020}, times(c, visit, day, object{"rescheduleBookingId": moved.Str("id"), "showOclock": false, "showFixedTimes": "1020"}))
		shorter := c.Schedule(visit, 1000, object{"rescheduleBookingId": moved.Str("id"), "timeAdjustersCustomFields": object{"guests": 1}}).OK()
		assert.Equal(t, 45, shorter.Num("duration"))
		define(c, "booking", public("other", "text", nil)).OK()
		again := c.Schedule(visit, 1000, object{"rescheduleBookingId": shorter.Str("id")}).OK()
		assert.Equal(t, 30, again.Num("duration"), "a deleted field adds nothing, and what is required now is not asked of a visit that was booked before")
	})
}

func TestFiltersLeaveResourcesWithTheirData(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		visit := c.NewType(nil)
		heart := c.NewResource(object{"meta": object{"specialty": []string{"general", "heart"}, "language": "Arabic", "grade": "A"}}, visit)
		skin := c.NewResource(object{"meta": object{"specialty": "skin", "language": "English", "grade": "B"}}, visit)
		c.NewResource(nil, visit)
		filters := object{"filterResources": true}
		define(c, "booking",
			public("specialty", "options", object{"info": filters, "options": []any{object{"value": "general"}, object{"value": "heart"}, object{"value": "skin"}, object{"value": "bones"}}}),
			public("language", "text", object{"info": filters}),
			internal("grade", "text", object{"info": filters}),
		).OK()
		for _, test := range []struct {
			filters object
			left    []string
		}{
			{object{"specialty": "heart"}, []string{heart}},
			{object{"specialty": []string{"general", "skin"}}, []string{heart, skin}},
			{object{"language": " english "}, []string{skin}},
			{object{"language": "english", "specialty": "heart"}, nil},
			{object{"specialty": "bones"}, nil},
		} {
			body := object{"type": visit, "resourceFiltersCustomFields": test.filters}
			places := c.Send(nodetest.Request{Method: post, Path: "/availability/resources", App: c.ID, Body: body}).OK()
			assert.ElementsMatch(t, test.left, places.Pluck("result", "id"), "%v", test.filters)
			kinds := c.Send(nodetest.Request{Method: post, Path: "/availability/types", App: c.ID, Body: body}).OK()
			assert.Equal(t, len(test.left) > 0, len(kinds.List("result")) == 1, "%v", test.filters)
			free := c.Send(nodetest.Request{Method: post, Path: "/availability/times", App: c.ID, Body: object{
				"type": visit, "from": nodetest.Day(3), "limit": 1, "resourceFiltersCustomFields": test.filters,
			}})
			made := c.Schedule(visit, 1000, object{"resourceFiltersCustomFields": test.filters})
			joined := c.Staff(put, nodetest.JoinPath, nodetest.Joining(visit, object{"resourceFiltersCustomFields": test.filters}))
			if len(test.left) == 0 {
				free.Refused(http.StatusBadRequest, models.CodeTypeMismatch)
				made.Refused(http.StatusBadRequest, models.CodeTypeMismatch)
				joined.Refused(http.StatusConflict, models.CodeNobodyServes)
				continue
			}
			var offered []string
			for _, id := range free.OK().List("result.0.times.0.resources") {
				name, _ := id.(string)
				offered = append(offered, name)
			}
			assert.ElementsMatch(t, test.left, offered, "%v", test.filters)
			assert.Contains(t, test.left, made.OK().Str("resourceId"))
			for _, room := range []string{heart, skin} {
				waiting := c.Staff(get, "/management/queue?resourceId="+room, nil).OK().Pluck("result", "id")
				if assert.Equal(t, contains(test.left, room), contains(waiting, joined.OK().Str("id")), "%v", test.filters) {
					continue
				}
			}
			c.Act("cancel", made.Str("id"), nil).OK()
		}
		for field, value := range map[string]any{"specialty": "teeth", "language": 5, "grade": "A", "made up": 1} {
			for _, path := range []string{"/availability/resources", "/availability/types", "/availability/times"} {
				a := c.Send(nodetest.Request{Method: post, Path: path, App: c.ID, Body: object{"type": visit, "resourceFiltersCustomFields": object{field: value}}})
				a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
				assert.Equal(t, []string{"resourceFiltersCustomFields." + field}, a.WrongFields(), path)
			}
		}
		assert.Equal(t, skin, c.Schedule(visit, 1200, object{"resourceFiltersCustomFields": object{"grade": "b"}}).OK().Str("resourceId"), "the desk knows every field")
	})
}

func contains(list []string, one string) bool { return slices.Contains(list, one) }

func TestCustomersGiveWhatIsRequiredOfThem(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		patient := c.Patient("+966500000303")
		profile := func(data object) nodetest.Response {
			return asPatient(c, patient, put, "/customer/profile", object{"data": data})
		}
		profile(object{"any": "thing"}).OK()
		define(c, "customer", public("age", "number", nil), public("chosen", "options", object{"optional": true, "options": []any{object{"value": "a"}}})).OK()
		for _, test := range []struct {
			data  object
			wrong []string
		}{
			{object{"any": "thing"}, []string{"data.age", "data.any"}},
			{object{"age": "old", "chosen": "b"}, []string{"data.age", "data.chosen"}},
			{object{"age": 30, "firstName": "Mona"}, []string{"data.firstName"}},
		} {
			a := profile(test.data)
			a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, test.wrong, a.WrongFields(), "%v", test.data)
		}
		assert.Equal(t, object{"any": "thing"}, asPatient(c, patient, get, "/customer/profile", nil).OK().At("result.data"), "nothing changed")
		id := profile(object{"age": 30, "chosen": "a"}).OK().Str("result.id")
		assert.Equal(t, object{"chosen": "a"}, c.Staff(put, "/management/customers/"+id, object{"data": object{"chosen": "a"}}).OK().At("result.data"), "the desk may not know it")
		a := c.Staff(put, "/management/customers/"+id, object{"data": object{"chosen": 5}})
		a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Equal(t, []string{"data.chosen"}, a.WrongFields())
	})
}
