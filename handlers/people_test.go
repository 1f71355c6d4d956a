package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// TestProvidersReachOnlyTheirOwnCustomers checks whose record a provider can
// read and change, and that no provider changes what a customer signs in with.
func TestProvidersReachOnlyTheirOwnCustomers(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		const doctor, former = "+966500000801", "+966500000802"
		kind, other := c.NewType(nil), c.NewType(nil)
		room, away := c.NewResource(nodetest.Object{"providerPhone": doctor}, kind), c.NewResource(nodetest.Object{"providerPhone": former}, other)
		c.Staff(http.MethodPut, "/management/resources/"+away, nodetest.Object{"providerPhone": ""}).OK()
		tokens := map[string]string{"doctor": c.SignIn(doctor, true).Str("accessToken"), "former": c.SignIn(former, true).Str("accessToken")}
		as := func(who, method, path string, body any) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: tokens[who], Body: body})
		}
		book := func(typeID, phone string) string {
			return c.Join(typeID, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": phone, "firstName": "Sara"}}).Str("customerId")
		}
		served := book(kind, "+966500000811")
		visit := c.Next(room).OK().Str("result.id")
		c.Act("start", visit, nil).OK()
		c.Act("end", visit, nil).OK()
		assigned := book(kind, "+966500000812")
		c.Next(room).OK()
		waiting, strange := book(kind, "+966500000813"), book(other, "+966500000814")

		assert.ElementsMatch(t, []string{served, assigned, waiting}, as("doctor", http.MethodGet, "/management/customers", nil).OK().Pluck("result", "id"))
		first := as("doctor", http.MethodGet, "/management/customers?limit=2", nil).OK()
		second := as("doctor", http.MethodGet, "/management/customers?limit=2&nextPageToken="+first.Str("pagination.nextPageToken"), nil).OK()
		assert.ElementsMatch(t, []string{served, assigned, waiting}, append(first.Pluck("result", "id"), second.Pluck("result", "id")...))
		assert.Empty(t, as("former", http.MethodGet, "/management/customers", nil).OK().List("result"))
		for _, id := range []string{served, assigned, waiting} {
			path := "/management/customers/" + id
			as("doctor", http.MethodGet, path, nil).OK()
			assert.Equal(t, "Limps.", as("doctor", http.MethodPut, path, nodetest.Object{"note": "Limps."}).OK().Str("result.note"))
		}
		before := h.Contents()
		for who, ids := range map[string][]string{"doctor": {strange}, "former": {served, assigned, waiting, strange}} {
			for _, id := range ids {
				path := "/management/customers/" + id
				as(who, http.MethodGet, path, nil).Refused(http.StatusNotFound, models.CodeCustomerMissing)
				as(who, http.MethodPut, path, nodetest.Object{"note": "Planted"}).Refused(http.StatusNotFound, models.CodeCustomerMissing)
				as(who, http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"id": id}})).
					Refused(http.StatusNotFound, models.CodeCustomerMissing)
			}
		}
		as("doctor", http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000814"}})).
			Refused(http.StatusConflict, models.CodeContactTaken)

		// Not even the address of their own customers, and not by a first one either.
		taken, mail := "+966500000821", "doctor@clinic.example"
		for _, body := range []nodetest.Object{{"phone": taken}, {"email": mail}, {"phone": taken, "note": "Planted"}} {
			as("doctor", http.MethodPut, "/management/customers/"+waiting, body).Refused(http.StatusForbidden, models.CodeForbidden)
		}
		require.Equal(t, before, h.Contents(), "nothing was changed")
		walkIn := c.Join(kind, nil).Str("customerId")
		as("doctor", http.MethodPut, "/management/customers/"+walkIn, nodetest.Object{"phone": taken}).Refused(http.StatusForbidden, models.CodeForbidden)
		assert.NotContains(t, []string{walkIn, waiting}, c.SignIn(taken, false).Str("user.id"), "the doctor's number is a customer of its own")
		shown := as("doctor", http.MethodGet, "/management/customers/"+waiting, nil).OK()
		as("doctor", http.MethodPut, "/management/customers/"+waiting, nodetest.Object{"phone": shown.Str("result.phone"), "lastName": "Ali"}).OK()

		// Those who may: the desk and those above it.
		for i, role := range []models.Role{models.RoleReceptionist, models.RoleAdmin, models.RoleOwner} {
			token := c.Member(role, []string{"+966500000831", "+966500000832", "+966500000833"}[i])
			phone := []string{"+966500000841", "+966500000842", "+966500000843"}[i]
			r := nodetest.Request{Method: http.MethodPut, Path: "/management/customers/" + waiting, Token: token, Body: nodetest.Object{"phone": phone}}
			assert.Equal(t, phone, h.Send(r).OK().Str("result.phone"))
		}
		// A customer named by a provider for the first time is created and comes into their scope.
		made := as("doctor", http.MethodPut, "/management/scheduling/new", nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000851"}})).OK()
		as("doctor", http.MethodGet, "/management/customers/"+made.Str("customerId"), nil).OK()
	})
}
