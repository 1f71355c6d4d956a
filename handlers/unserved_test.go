package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestJoiningATypeThatNoResourceServesIsRefused(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind, paid := c.NewType(nil), c.NewType(nodetest.Object{"price": "10.00", "paymentMethods": []string{"creditCard"}})
		other := c.NewResource(nodetest.Object{"category": "rooms"}, c.NewType(nil))
		refused := func(kind string, more nodetest.Object) {
			t.Helper()
			h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/management/scheduling/new", Token: c.Key, Body: nodetest.Joining(kind, more)}).
				Refused(http.StatusConflict, models.CodeNobodyServes)
		}
		refused(kind, nil)
		refused(paid, nil)
		room := c.NewResource(nodetest.Object{"category": "doctors"}, kind, paid)
		c.Join(paid, nil)
		waiting := c.Join(kind, nodetest.Object{"resourceFilters": nodetest.Object{"category": "doctors", "resources": []string{room, other}}}).Str("id")
		refused(kind, nodetest.Object{"resourceFilters": nodetest.Object{"category": "rooms"}})
		refused(kind, nodetest.Object{"resourceFilters": nodetest.Object{"resource": other}})
		for _, off := range []nodetest.Object{{"on": false}, {"on": true, "activated": false}} {
			c.Staff(http.MethodPut, "/management/resources/"+room, off).OK()
			refused(kind, nil)
		}
		assert.Equal(t, "PENDING_ASSIGNMENT", c.Staff(http.MethodGet, "/management/bookings/"+waiting, nil).OK().Str("result.status"))
		c.Staff(http.MethodPut, "/management/resources/"+room, nodetest.Object{"activated": true}).OK()
		assert.Equal(t, "A002", c.Join(kind, nil).Str("ticket"), "no number is lost")
		c.Staff(http.MethodDelete, "/management/resources/"+room, nil).OK()
		patient := c.Patient("+966500000041")
		h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: "/customer/scheduling/new", Token: patient, Body: nodetest.Joining(kind, nil)}).
			Refused(http.StatusConflict, models.CodeNobodyServes)
	})
}

func TestTypesHaveATimeoutOfTheirOwn(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		c.NewResource(nil, kind)
		minutes := func() int {
			t.Helper()
			return nodetest.Scalar[int](h, "SELECT assignment_timeout FROM bookings WHERE id = ?", c.Join(kind, nil).Str("id"))
		}
		path := "/management/types/" + kind
		assert.Equal(t, 180, c.Staff(http.MethodGet, path, nil).OK().Num("result.queueTimeoutMinutes"))
		assert.Equal(t, 180, minutes())
		for given, want := range map[int]int{45: 45, 0: 5, -1: 5, 1000: 180} {
			assert.Equal(t, want, c.Staff(http.MethodPut, path, nodetest.Object{"queueTimeoutMinutes": given}).OK().Num("result.queueTimeoutMinutes"))
			assert.Equal(t, want, minutes())
		}
		c.Staff(http.MethodPut, path, nodetest.Object{"queueTimeoutMinutes": 45}).OK()
		c.Staff(http.MethodPut, path, nodetest.Object{"minutes": 20}).OK()
		assert.Equal(t, 45, minutes(), "omitted, it is unchanged")
		asked := c.Join(kind, nodetest.Object{"assignmentTimeout": 20}).Str("id")
		assert.Equal(t, 20, nodetest.Scalar[int](h, "SELECT assignment_timeout FROM bookings WHERE id = ?", asked))
		short := c.NewType(nodetest.Object{"queueTimeoutMinutes": 1})
		assert.Equal(t, 5, c.Staff(http.MethodGet, "/management/types/"+short, nil).OK().Num("result.queueTimeoutMinutes"))
	})
}
