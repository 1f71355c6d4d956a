package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// TestDoctorsAppointmentsApp_GoesFromTheClinicToTheAppointment takes the six steps of the
// use case of the API document ("Doctors Appointments App"), and then the doctor's.
func TestDoctorsAppointmentsApp_GoesFromTheClinicToTheAppointment(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		put := func(path string, body any) nodetest.Response { return c.Staff(http.MethodPut, path, body).OK() }
		visit := c.NewType(nodetest.Object{"name": "Checkup", "minutes": 20, "autoConfirm": false})
		put("/management/customFields/booking", []any{
			nodetest.Object{
				"id": "specialty", "name": "Specialty", "type": "options", "visibility": "public", "optional": true, "info": nodetest.Object{"filterResources": true},
				"options": []any{nodetest.Object{"value": "general", "name": "General"}, nodetest.Object{"value": "pediatrics", "name": "Children"}},
			},
			nodetest.Object{"id": "children", "name": "Children", "type": "number", "visibility": "public", "optional": true, "minutes": 10},
			nodetest.Object{"id": "reason", "name": "Reason for the visit", "type": "paragraph", "visibility": "public"},
			nodetest.Object{"id": "triage", "name": "Triage", "type": "text", "visibility": "providerOnly", "optional": true},
		})
		doctor := c.NewResource(nodetest.Object{
			"name": "Dr. Sara", "category": "North clinic", "meta": nodetest.Object{"specialty": []string{"pediatrics"}}, "providerPhone": "+966500000009",
		}, visit)
		c.NewResource(nodetest.Object{"name": "Dr. Omar", "category": "North clinic", "meta": nodetest.Object{"specialty": "general"}}, visit)
		public := func(method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, App: c.ID, Body: body}).OK()
		}

		// The doctor's app sets the hours of one resource.
		provider := c.SignIn("+966500000009", true).Str("accessToken")
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/timeRules/" + doctor, Token: provider, Body: nodetest.Object{
			"depthOfDays": 30, "rules": []any{rule(1000, 1300)},
		}}).OK()

		// 1. The clinics.
		clinics := public(http.MethodPost, "/availability/resourceCategories", nodetest.Object{})
		assert.Equal(t, "North clinic", clinics.Str("result.0.name"))
		// 2. The filters.
		filters := public(http.MethodGet, "/customFields/resourceFilters", nil)
		assert.Equal(t, []string{"specialty"}, filters.Pluck("result", "id"))
		filter := nodetest.Object{"specialty": "pediatrics"}
		// 3. The doctors.
		doctors := public(http.MethodPost, "/availability/resources", nodetest.Object{
			"resourceFilters": nodetest.Object{"category": "North clinic"}, "resourceFiltersCustomFields": filter,
		})
		assert.Equal(t, []string{doctor}, doctors.Pluck("result", "id"))
		// 4. The doctor's appointment types.
		types := public(http.MethodPost, "/availability/types", nodetest.Object{"resourceFilters": nodetest.Object{"resource": doctor}})
		assert.Equal(t, []string{visit}, types.Pluck("result", "id"))
		// 5. Days and times, for a visit with two children.
		adjusters := public(http.MethodGet, "/customFields/timeAdjusters?type="+visit, nil)
		assert.Equal(t, []string{"children"}, adjusters.Pluck("result", "id"))
		adjusted := nodetest.Object{"children": 2}
		days := public(http.MethodPost, "/availability/times", nodetest.Object{
			"type": visit, "from": nodetest.Day(2), "limit": 1, "resourceFilters": nodetest.Object{"resource": doctor}, "timeAdjustersCustomFields": adjusted,
		})
		assert.Equal(t, nodetest.Day(2), days.Str("result.0.date"))
		assert.Equal(t, 1000, days.Num("result.0.times.0.time"))
		assert.Equal(t, 40, days.Num("result.0.times.0.duration"))
		// 6. The fields of the appointment and of the patient, and the appointment.
		info := public(http.MethodGet, "/customFields/bookingInfo?type="+visit, nil)
		assert.Equal(t, []string{"reason"}, info.Pluck("result", "id"))
		assert.Contains(t, public(http.MethodGet, "/customFields/customer", nil).Pluck("result", "id"), "firstName")
		patient := c.Patient("+966500000051")
		h.Send(nodetest.Request{Method: http.MethodPut, Path: "/customer/profile", Token: patient, Body: nodetest.Object{"firstName": "Mona"}}).OK()
		book := nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: nodetest.Object{
			"type": visit, "date": days.Str("result.0.date"), "time": 1000, "resourceFilters": nodetest.Object{"resource": doctor},
			"resourceFiltersCustomFields": filter, "timeAdjustersCustomFields": adjusted,
		}}
		missing := h.Unchanged(book).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		assert.Equal(t, []string{"bookingInfoCustomFields.reason"}, missing.WrongFields())
		body, _ := book.Body.(nodetest.Object)
		body["bookingInfoCustomFields"] = nodetest.Object{"reason": "Fever since Monday"}
		made := h.Send(book).OK()
		assert.Equal(t, "PENDING_APPROVAL", made.Str("result.status"))
		assert.Equal(t, 40, made.Num("result.duration"))
		assert.Equal(t, "Fever since Monday", made.Str("result.info.reason"))

		// The doctor sees the request and approves it.
		mine := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/bookings?status=PENDING_APPROVAL&includes=customer", Token: provider}).OK()
		assert.Equal(t, "Mona", mine.Str("result.0.customer.firstName"))
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/management/bookings/approve", Token: provider, Body: nodetest.Object{"bookingId": made.Str("result.id")}}).OK()
		seen := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings/" + made.Str("result.id"), Token: patient}).OK()
		assert.Equal(t, "CONFIRMED", seen.Str("result.status"))
	})
}
