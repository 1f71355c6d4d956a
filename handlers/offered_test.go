package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestPatientsBookOnlyWhatTheWebsiteOffers(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		offered, deskOnly := c.NewType(nil), c.NewType(nodetest.Object{"bookFromWebsite": false})
		room := c.NewResource(nil, offered, deskOnly)
		back := c.NewResource(nodetest.Object{"bookFromWebsite": false}, offered, deskOnly)
		patient := c.Patient("+966500000051")
		book := func(body nodetest.Object) nodetest.Request {
			return nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: body}
		}
		for _, body := range []nodetest.Object{
			nodetest.Joining(deskOnly, nil), nodetest.Joining(offered, nodetest.With(back)), nodetest.Appointment(deskOnly, nodetest.Day(3), 1000, nil), nodetest.Appointment(offered, nodetest.Day(3), 1000, nodetest.With(back)),
		} {
			h.Unchanged(book(body)).Refused(http.StatusConflict, models.CodeNotOffered)
			if _, scheduled := body["date"]; scheduled {
				c.Staff(http.MethodPut, "/management/scheduling/new", body).Refused(http.StatusConflict, models.CodeNotOffered)
			}
			body["showAll"] = true
			h.Unchanged(book(body)).Refused(http.StatusConflict, models.CodeNotOffered)
			c.Staff(http.MethodPut, "/management/scheduling/new", body).OK()
		}
		h.Send(book(nodetest.Joining(offered, nodetest.With(room)))).OK()
		visit := h.Send(book(nodetest.Appointment(offered, nodetest.Day(4), 1000, nil))).OK()
		assert.Equal(t, room, visit.Str("result.resource.id"))
		h.Unchanged(book(nodetest.Appointment(offered, nodetest.Day(4), 1000, nil))).Refused(http.StatusConflict, models.CodeSlotTaken)

		given := c.Staff(http.MethodPut, "/management/scheduling/new", nodetest.Appointment(offered, nodetest.Day(5), 1000, nodetest.Object{
			"showAll": true, "resourceFilters": nodetest.Object{"resource": back}, "customerIdentifier": nodetest.Object{"phone": "+966500000051"},
		})).OK().Str("id")
		moved := h.Send(book(nodetest.Appointment(offered, nodetest.Day(5), 1100, nodetest.Object{"rescheduleBookingId": given}))).OK()
		assert.Equal(t, back, moved.Str("result.resource.id"), "the resource that the desk chose")
	})
}
