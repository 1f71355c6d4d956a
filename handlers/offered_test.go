package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

func TestPatientsBookOnlyWhatTheWebsiteOffers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		offered, deskOnly := c.newType(nil), c.newType(object{"bookFromWebsite": false})
		room := c.newResource(nil, offered, deskOnly)
		back := c.newResource(object{"bookFromWebsite": false}, offered, deskOnly)
		patient := c.patient("+966500000051")
		book := func(body object) request {
			return request{method: http.MethodPut, path: "/customer/scheduling/new", token: patient, body: body}
		}
		for _, body := range []object{
			joining(deskOnly, nil), joining(offered, with(back)), appointment(deskOnly, day(3), 1000, nil), appointment(offered, day(3), 1000, with(back)),
		} {
			h.unchanged(book(body)).refused(http.StatusConflict, models.CodeNotOffered)
			c.staff(http.MethodPut, "/management/scheduling/new", body).ok()
		}
		h.send(book(joining(offered, with(room)))).ok()
		visit := h.send(book(appointment(offered, day(4), 1000, nil))).ok()
		assert.Equal(t, room, visit.str("result.resource.id"))
		h.unchanged(book(appointment(offered, day(4), 1000, nil))).refused(http.StatusConflict, models.CodeSlotTaken)

		given := c.staff(http.MethodPut, "/management/scheduling/new", appointment(offered, day(5), 1000, object{
			"resourceFilters": object{"resource": back}, "customerIdentifier": object{"phone": "+966500000051"},
		})).ok().str("id")
		moved := h.send(book(appointment(offered, day(5), 1100, object{"rescheduleBookingId": given}))).ok()
		assert.Equal(t, back, moved.str("result.resource.id"), "the resource that the desk chose")

		both := with(back)
		both["showAll"] = true
		h.send(book(joining(deskOnly, both))).ok()
		h.send(book(appointment(offered, day(4), 1000, object{"showAll": true}))).ok()
	})
}
