package handlers_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// Several people share a phone: each booking shows who comes.
func TestABookingKeepsTheNameItWasMadeWith(t *testing.T) {
	t.Parallel()
	onBothWith(t, allowPrivate, func(t *testing.T, h *house) {
		c := h.newClinic()
		r := newReceiver(t, nil)
		c.hook("bookingUnassigned", r.url, nil)
		kind := c.newType(object{"minutes": 30})
		room := c.newResource(nil, kind)
		const shared = "+966500000701"
		named := func(first, last string) object {
			return object{"customerIdentifier": object{"phone": shared, "firstName": first, "lastName": last}}
		}
		sara, omar := c.join(kind, named("Sara", "Ali")).ok(), c.join(kind, named("Omar", "Ali")).ok()
		again := c.join(kind, object{"customerIdentifier": object{"phone": shared}}).ok()
		require.Equal(t, sara.str("customerId"), omar.str("customerId"))
		for i, b := range []answer{sara, omar, again} {
			assert.Equal(t, []string{"Sara", "Omar", "Sara"}[i], b.str("customer.firstName"))
			assert.Equal(t, "Ali", b.str("customer.lastName"))
		}
		list := c.staff(http.MethodGet, "/management/queue?resourceId="+room, nil).ok().list("result")
		assert.Equal(t, []any{"Sara", "Omar", "Sara"}, []any{at(list[0], "customer.firstName"), at(list[1], "customer.firstName"), at(list[2], "customer.firstName")})
		told := map[any]any{}
		for _, a := range r.await(3) {
			told[at(a.body, "id")] = at(a.body, "customer.firstName")
		}
		assert.Equal(t, map[any]any{sara.str("id"): "Sara", omar.str("id"): "Omar", again.str("id"): "Sara"}, told)

		t.Log("an appointment, and what takes its place, too")
		first := c.schedule(kind, 1000, named("Omar", "Ali")).ok()
		assert.Equal(t, "Omar", first.str("customer.firstName"))
		assert.Equal(t, "Omar", c.schedule(kind, 1100, object{"rescheduleBookingId": first.str("id")}).ok().str("customer.firstName"))

		t.Log("a name that is corrected is corrected where it is the customer's")
		c.staff(http.MethodPut, "/management/customers/"+sara.str("customerId"), object{"firstName": "Sarah"}).ok()
		name := func(id string) string {
			return c.staff(http.MethodGet, "/management/bookings/"+id, nil).ok().str("result.customer.firstName")
		}
		assert.Equal(t, "Sarah", name(sara.str("id")))
		assert.Equal(t, "Omar", name(omar.str("id")))
		export := c.staff(http.MethodGet, "/management/customers/"+sara.str("customerId")+"/export", nil).ok()
		assert.ElementsMatch(t, []string{"", "Omar", "", "Omar", "Omar"}, export.pluck("bookings", "firstName"))
		c.staff(http.MethodDelete, "/management/customers/"+sara.str("customerId"), nil).ok()
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM bookings WHERE first_name <> '' OR last_name <> ''"), "erased with the rest")
	})
}

func TestTwoRecordsOfOnePersonAreMerged(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		const phone, mail = "+966500000711", "mona@example.com"
		visit := c.join(kind, object{"customerIdentifier": object{"phone": phone, "firstName": "Mona"}}).ok()
		c.next(room).ok()
		c.act("end", visit.str("id"), nil).ok()
		waits := c.join(kind, object{"customerIdentifier": object{"email": mail, "firstName": "Muna", "lastName": "Saleh"}}).ok()
		keep, duplicate := visit.str("customerId"), waits.str("customerId")
		byMail := func() string {
			body := object{"method": "email", "email": mail}
			h.send(request{method: http.MethodPost, path: "/auth/otp/request", app: c.id, body: body}).ok()
			body["code"] = fixedCode
			return h.send(request{method: http.MethodPost, path: "/auth/otp/verify", app: c.id, body: body}).ok().str("accessToken")
		}
		token := byMail()
		h.send(request{method: http.MethodPost, path: "/devices", token: token, body: object{"token": "a phone", "platform": "ios"}}).ok()
		merge := func(keep, duplicate string) answer {
			return c.staff(http.MethodPost, "/management/customers/merge", object{"customerId": keep, "duplicateId": duplicate})
		}

		merge(keep, keep).refused(http.StatusConflict, models.CodeSameCustomer)
		merge(keep, "nobody").refused(http.StatusNotFound, models.CodeCustomerMissing)
		elsewhere := h.newClinic()
		stranger := elsewhere.join(elsewhere.newType(nil), nil).str("customerId")
		merge(keep, stranger).refused(http.StatusNotFound, models.CodeCustomerMissing)
		merged := merge(keep, duplicate).ok()

		assert.Equal(t, []string{keep, phone, mail, "Mona", ""}, []string{
			merged.str("result.id"), merged.str("result.phone"), merged.str("result.email"), merged.str("result.firstName"), merged.str("result.lastName"),
		})
		assert.ElementsMatch(t, []string{visit.str("id"), waits.str("id")}, c.staff(http.MethodGet, "/management/bookings?customerId="+keep, nil).ok().pluck("result", "id"))
		now := c.staff(http.MethodGet, "/management/bookings/"+waits.str("id"), nil).ok()
		assert.Equal(t, []string{"Muna", "Saleh"}, []string{now.str("result.customer.firstName"), now.str("result.customer.lastName")})
		assert.Equal(t, 1, now.num("result.queuePosition"), "nobody loses a place")
		c.staff(http.MethodGet, "/management/customers/"+duplicate, nil).refused(http.StatusNotFound, models.CodeCustomerMissing)
		merge(keep, duplicate).refused(http.StatusNotFound, models.CodeCustomerMissing)
		h.send(request{method: http.MethodGet, path: "/customer/bookings", token: token}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
		assert.Zero(t, scalar[int](h, "SELECT count(*) FROM devices"))

		t.Log("both addresses lead to the one that stays")
		token = byMail()
		mine := h.send(request{method: http.MethodGet, path: "/customer/bookings", token: token}).ok()
		assert.Len(t, mine.list("result"), 2)
		h.send(request{method: http.MethodPost, path: "/customer/bookings/cancel", token: token, body: object{"bookingId": waits.str("id")}}).ok()
	})
}

// Erasing a customer erases the duplicates that were merged into them, and the export
// has what was kept about them.
func TestAMergedDuplicateIsErasedAndExportedToo(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		duplicate, session := c.leaveTraces(kind, c.newResource(nil, kind))
		keep := func(phone string) string {
			return c.join(kind, object{"customerIdentifier": object{"phone": phone, "firstName": "Mona"}}).str("customerId")
		}
		first, last := keep("+966500000061"), keep("+966500000062")
		for _, pair := range [][2]string{{first, duplicate}, {last, first}} {
			c.staff(http.MethodPost, "/management/customers/merge", object{"customerId": pair[0], "duplicateId": pair[1]}).ok()
		}
		held := c.staff(http.MethodGet, "/management/customers/"+last+"/export", nil).ok()
		assert.NotEmpty(t, held.list("sessions"))
		assert.Contains(t, held.pluck("audit", "actor.id"), duplicate)
		assert.Contains(t, held.pluck("audit", "subject.id"), duplicate)

		c.staff(http.MethodDelete, "/management/customers/"+last, nil).ok()
		assert.Empty(t, h.traces())
		h.once("desk", request{method: http.MethodPut, path: "/management/customers/" + duplicate, token: c.key, body: object{"note": "Planted by the desk"}}).
			refused(http.StatusConflict, models.CodeAnswerLost)
		h.send(request{method: http.MethodGet, path: "/customer/profile", token: session.str("accessToken")}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
	}, outgoing)
}

// The desk merges a patient who is called, held, served and canceled meanwhile.
func TestMergingGoesBesideTheQueue(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		keep := c.join(kind, object{"customerIdentifier": object{"phone": "+966500000071"}}).str("customerId")
		for round := range 20 {
			phone := fmt.Sprintf("+96650000%04d", 1000+round)
			var ids []string
			customer := ""
			for range 6 {
				b := c.join(kind, object{"customerIdentifier": object{"phone": phone}, "priority": 1})
				ids, customer = append(ids, b.str("id")), b.str("customerId")
			}
			post := func(path string, body object) request {
				return request{method: http.MethodPost, path: path, token: c.key, body: body}
			}
			together := []request{
				post("/management/customers/merge", object{"customerId": keep, "duplicateId": customer}),
				post("/management/queue/next", object{"resourceId": room}),
				post("/management/queue/next", object{"resourceId": room}),
				post("/management/bookings/hold", object{"bookingId": ids[3]}),
				post("/management/bookings/cancel", object{"bookingId": ids[4]}),
				post("/management/bookings/cancel", object{"bookingId": ids[5]}),
			}
			for i, a := range h.atOnce(len(together), func(i int) request { return together[i] }) {
				assert.Less(t, a.status, http.StatusInternalServerError, "%s: %s", together[i].path, a.raw)
			}
			for _, id := range ids {
				assert.Equal(t, keep, c.staff(http.MethodGet, "/management/bookings/"+id, nil).ok().str("result.customerId"))
			}
		}
	})
}
