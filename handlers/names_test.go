package handlers_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// Several people share a phone: each booking shows who comes.
func TestABookingKeepsTheNameItWasMadeWith(t *testing.T) {
	t.Parallel()
	nodetest.OnBothWith(t, nodetest.AllowPrivate, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		r := nodetest.NewReceiver(t, nil)
		c.Hook("bookingUnassigned", r.URL, nil)
		kind := c.NewType(nodetest.Object{"minutes": 30})
		room := c.NewResource(nil, kind)
		const shared = "+966500000701"
		named := func(first, last string) nodetest.Object {
			return nodetest.Object{"customerIdentifier": nodetest.Object{"phone": shared, "firstName": first, "lastName": last}}
		}
		sara, omar := c.Join(kind, named("Sara", "Ali")).OK(), c.Join(kind, named("Omar", "Ali")).OK()
		again := c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": shared}}).OK()
		require.Equal(t, sara.Str("customerId"), omar.Str("customerId"))
		for i, b := range []nodetest.Response{sara, omar, again} {
			assert.Equal(t, []string{"Sara", "Omar", "Sara"}[i], b.Str("customer.firstName"))
			assert.Equal(t, "Ali", b.Str("customer.lastName"))
		}
		list := c.Staff(http.MethodGet, "/management/queue?resourceId="+room, nil).OK().List("result")
		assert.Equal(t, []any{"Sara", "Omar", "Sara"}, []any{nodetest.At(list[0], "customer.firstName"), nodetest.At(list[1], "customer.firstName"), nodetest.At(list[2], "customer.firstName")})
		told := map[any]any{}
		for _, a := range r.Await(3) {
			told[nodetest.At(a.Body, "id")] = nodetest.At(a.Body, "customer.firstName")
		}
		assert.Equal(t, map[any]any{sara.Str("id"): "Sara", omar.Str("id"): "Omar", again.Str("id"): "Sara"}, told)

		t.Log("an appointment, and what takes its place, too")
		first := c.Schedule(kind, 1000, named("Omar", "Ali")).OK()
		assert.Equal(t, "Omar", first.Str("customer.firstName"))
		assert.Equal(t, "Omar", c.Schedule(kind, 1100, nodetest.Object{"rescheduleBookingId": first.Str("id")}).OK().Str("customer.firstName"))

		t.Log("a name that is corrected is corrected where it is the customer's")
		c.Staff(http.MethodPut, "/management/customers/"+sara.Str("customerId"), nodetest.Object{"firstName": "Sarah"}).OK()
		name := func(id string) string {
			return c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK().Str("result.customer.firstName")
		}
		assert.Equal(t, "Sarah", name(sara.Str("id")))
		assert.Equal(t, "Omar", name(omar.Str("id")))
		export := c.Staff(http.MethodGet, "/management/customers/"+sara.Str("customerId")+"/export", nil).OK()
		assert.ElementsMatch(t, []string{"", "Omar", "", "Omar", "Omar"}, export.Pluck("bookings", "firstName"))
		c.Staff(http.MethodDelete, "/management/customers/"+sara.Str("customerId"), nil).OK()
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM bookings WHERE first_name <> '' OR last_name <> ''"), "erased with the rest")
	})
}

func TestTwoRecordsOfOnePersonAreMerged(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		const phone, mail = "+966500000711", "mona@example.com"
		visit := c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": phone, "firstName": "Mona"}}).OK()
		c.Next(room).OK()
		c.Act("end", visit.Str("id"), nil).OK()
		waits := c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"email": mail, "firstName": "Muna", "lastName": "Saleh"}}).OK()
		keep, duplicate := visit.Str("customerId"), waits.Str("customerId")
		byMail := func() string {
			body := nodetest.Object{"method": "email", "email": mail}
			h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/request", App: c.ID, Body: body}).OK()
			body["code"] = nodetest.FixedCode
			return h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/otp/verify", App: c.ID, Body: body}).OK().Str("accessToken")
		}
		token := byMail()
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/devices", Token: token, Body: nodetest.Object{"token": "a phone", "platform": "ios"}}).OK()
		merge := func(keep, duplicate string) nodetest.Response {
			return c.Staff(http.MethodPost, "/management/customers/merge", nodetest.Object{"customerId": keep, "duplicateId": duplicate})
		}

		merge(keep, keep).Refused(http.StatusConflict, models.CodeSameCustomer)
		merge(keep, "nobody").Refused(http.StatusNotFound, models.CodeCustomerMissing)
		elsewhere := h.NewClinic()
		stranger := elsewhere.Join(elsewhere.NewType(nil), nil).Str("customerId")
		merge(keep, stranger).Refused(http.StatusNotFound, models.CodeCustomerMissing)
		merged := merge(keep, duplicate).OK()

		assert.Equal(t, []string{keep, phone, mail, "Mona", ""}, []string{
			merged.Str("result.id"), merged.Str("result.phone"), merged.Str("result.email"), merged.Str("result.firstName"), merged.Str("result.lastName"),
		})
		assert.ElementsMatch(t, []string{visit.Str("id"), waits.Str("id")}, c.Staff(http.MethodGet, "/management/bookings?customerId="+keep, nil).OK().Pluck("result", "id"))
		now := c.Staff(http.MethodGet, "/management/bookings/"+waits.Str("id"), nil).OK()
		assert.Equal(t, []string{"Muna", "Saleh"}, []string{now.Str("result.customer.firstName"), now.Str("result.customer.lastName")})
		assert.Equal(t, 1, now.Num("result.queuePosition"), "nobody loses a place")
		c.Staff(http.MethodGet, "/management/customers/"+duplicate, nil).Refused(http.StatusNotFound, models.CodeCustomerMissing)
		merge(keep, duplicate).Refused(http.StatusNotFound, models.CodeCustomerMissing)
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: token}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		assert.Zero(t, nodetest.Scalar[int](h, "SELECT count(*) FROM devices"))

		t.Log("both addresses lead to the one that stays")
		token = byMail()
		mine := h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/bookings", Token: token}).OK()
		assert.Len(t, mine.List("result"), 2)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: "/customer/bookings/cancel", Token: token, Body: nodetest.Object{"bookingId": waits.Str("id")}}).OK()
	})
}

// Erasing a customer erases the duplicates that were merged into them, and the export
// has what was kept about them.
func TestAMergedDuplicateIsErasedAndExportedToo(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		duplicate, session := leaveTraces(c, kind, c.NewResource(nil, kind))
		keep := func(phone string) string {
			return c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": phone, "firstName": "Mona"}}).Str("customerId")
		}
		first, last := keep("+966500000061"), keep("+966500000062")
		for _, pair := range [][2]string{{first, duplicate}, {last, first}} {
			c.Staff(http.MethodPost, "/management/customers/merge", nodetest.Object{"customerId": pair[0], "duplicateId": pair[1]}).OK()
		}
		held := c.Staff(http.MethodGet, "/management/customers/"+last+"/export", nil).OK()
		assert.NotEmpty(t, held.List("sessions"))
		assert.Contains(t, held.Pluck("audit", "actor.id"), duplicate)
		assert.Contains(t, held.Pluck("audit", "subject.id"), duplicate)

		c.Staff(http.MethodDelete, "/management/customers/"+last, nil).OK()
		assert.Empty(t, traces(h))
		nodetest.Once(h, "desk", nodetest.Request{Method: http.MethodPut, Path: "/management/customers/" + duplicate, Token: c.Key, Body: nodetest.Object{"note": "Planted by the desk"}}).
			Refused(http.StatusConflict, models.CodeAnswerLost)
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/customer/profile", Token: session.Str("accessToken")}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	}, nodetest.Outgoing)
}

// The desk merges a patient whose booking is called, held, served and canceled
// meanwhile.
func TestRecordsAreMergedWhileTheirBookingsChange(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		keep := c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000071"}}).Str("customerId")
		for round := range 8 {
			phone := fmt.Sprintf("+96650000%04d", 1000+round)
			var ids []string
			customer := ""
			for range 6 {
				b := c.Join(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": phone}, "priority": 1})
				ids, customer = append(ids, b.Str("id")), b.Str("customerId")
			}
			post := func(path string, body nodetest.Object) nodetest.Request {
				return nodetest.Request{Method: http.MethodPost, Path: path, Token: c.Key, Body: body}
			}
			together := []nodetest.Request{
				post("/management/customers/merge", nodetest.Object{"customerId": keep, "duplicateId": customer}),
				post("/management/queue/next", nodetest.Object{"resourceId": room}),
				post("/management/queue/next", nodetest.Object{"resourceId": room}),
				post("/management/bookings/hold", nodetest.Object{"bookingId": ids[3]}),
				post("/management/bookings/cancel", nodetest.Object{"bookingId": ids[4]}),
				post("/management/bookings/cancel", nodetest.Object{"bookingId": ids[5]}),
			}
			for i, a := range nodetest.AtOnce(h, len(together), func(i int) nodetest.Request { return together[i] }) {
				assert.Less(t, a.Status, http.StatusInternalServerError, "%s: %s", together[i].Path, a.Raw)
			}
			for _, id := range ids {
				assert.Equal(t, keep, c.Staff(http.MethodGet, "/management/bookings/"+id, nil).OK().Str("result.customerId"))
			}
		}
	})
}
