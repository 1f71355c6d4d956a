package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// TestProvidersReachOnlyTheirOwnCustomers checks whose record a provider can
// read and change, and that no provider changes what a customer signs in with.
func TestProvidersReachOnlyTheirOwnCustomers(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		const doctor, former = "+966500000801", "+966500000802"
		kind, other := c.newType(nil), c.newType(nil)
		room, away := c.newResource(object{"providerPhone": doctor}, kind), c.newResource(object{"providerPhone": former}, other)
		c.staff(http.MethodPut, "/management/resources/"+away, object{"providerPhone": ""}).ok()
		tokens := map[string]string{"doctor": c.signIn(doctor, true).str("accessToken"), "former": c.signIn(former, true).str("accessToken")}
		as := func(who, method, path string, body any) answer {
			return h.send(request{method: method, path: path, token: tokens[who], body: body})
		}
		book := func(typeID, phone string) string {
			return c.join(typeID, object{"customerIdentifier": object{"phone": phone, "firstName": "Sara"}}).str("customerId")
		}
		served := book(kind, "+966500000811")
		visit := c.next(room).ok().str("result.id")
		c.act("start", visit, nil).ok()
		c.act("end", visit, nil).ok()
		assigned := book(kind, "+966500000812")
		c.next(room).ok()
		waiting, strange := book(kind, "+966500000813"), book(other, "+966500000814")

		assert.ElementsMatch(t, []string{served, assigned, waiting}, as("doctor", http.MethodGet, "/management/customers", nil).ok().pluck("result", "id"))
		first := as("doctor", http.MethodGet, "/management/customers?limit=2", nil).ok()
		second := as("doctor", http.MethodGet, "/management/customers?limit=2&nextPageToken="+first.str("pagination.nextPageToken"), nil).ok()
		assert.ElementsMatch(t, []string{served, assigned, waiting}, append(first.pluck("result", "id"), second.pluck("result", "id")...))
		assert.Empty(t, as("former", http.MethodGet, "/management/customers", nil).ok().list("result"))
		for _, id := range []string{served, assigned, waiting} {
			path := "/management/customers/" + id
			as("doctor", http.MethodGet, path, nil).ok()
			assert.Equal(t, "Limps.", as("doctor", http.MethodPut, path, object{"note": "Limps."}).ok().str("result.note"))
		}
		before := h.contents()
		for who, ids := range map[string][]string{"doctor": {strange}, "former": {served, assigned, waiting, strange}} {
			for _, id := range ids {
				path := "/management/customers/" + id
				as(who, http.MethodGet, path, nil).refused(http.StatusNotFound, models.CodeCustomerMissing)
				as(who, http.MethodPut, path, object{"note": "Planted"}).refused(http.StatusNotFound, models.CodeCustomerMissing)
				as(who, http.MethodPut, "/management/scheduling/new", joining(kind, object{"customerIdentifier": object{"id": id}})).
					refused(http.StatusNotFound, models.CodeCustomerMissing)
			}
		}
		as("doctor", http.MethodPut, "/management/scheduling/new", joining(kind, object{"customerIdentifier": object{"phone": "+966500000814"}})).
			refused(http.StatusConflict, models.CodeContactTaken)

		// Not even the address of their own customers, and not by a first one either.
		taken, mail := "+966500000821", "doctor@clinic.example"
		for _, body := range []object{{"phone": taken}, {"email": mail}, {"phone": taken, "note": "Planted"}} {
			as("doctor", http.MethodPut, "/management/customers/"+waiting, body).refused(http.StatusForbidden, models.CodeForbidden)
		}
		require.Equal(t, before, h.contents(), "nothing was changed")
		walkIn := c.join(kind, nil).str("customerId")
		as("doctor", http.MethodPut, "/management/customers/"+walkIn, object{"phone": taken}).refused(http.StatusForbidden, models.CodeForbidden)
		assert.NotContains(t, []string{walkIn, waiting}, c.signIn(taken, false).str("user.id"), "the doctor's number is a customer of its own")
		shown := as("doctor", http.MethodGet, "/management/customers/"+waiting, nil).ok()
		as("doctor", http.MethodPut, "/management/customers/"+waiting, object{"phone": shown.str("result.phone"), "lastName": "Ali"}).ok()

		// Those who may: the desk and those above it.
		for i, role := range []models.Role{models.RoleReceptionist, models.RoleAdmin, models.RoleOwner} {
			token := c.member(role, []string{"+966500000831", "+966500000832", "+966500000833"}[i])
			phone := []string{"+966500000841", "+966500000842", "+966500000843"}[i]
			r := request{method: http.MethodPut, path: "/management/customers/" + waiting, token: token, body: object{"phone": phone}}
			assert.Equal(t, phone, h.send(r).ok().str("result.phone"))
		}
		// A customer named by a provider for the first time is created and comes into their scope.
		made := as("doctor", http.MethodPut, "/management/scheduling/new", joining(kind, object{"customerIdentifier": object{"phone": "+966500000851"}})).ok()
		as("doctor", http.MethodGet, "/management/customers/"+made.str("customerId"), nil).ok()
	})
}
