package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

func TestJoiningWhatNobodyServesIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind, paid := c.newType(nil), c.newType(object{"price": "10.00", "paymentMethods": []string{"creditCard"}})
		other := c.newResource(object{"category": "rooms"}, c.newType(nil))
		refused := func(kind string, more object) {
			t.Helper()
			h.unchanged(request{method: http.MethodPut, path: "/management/scheduling/new", token: c.key, body: joining(kind, more)}).
				refused(http.StatusConflict, models.CodeNobodyServes)
		}
		refused(kind, nil)
		refused(paid, nil)
		room := c.newResource(object{"category": "doctors"}, kind, paid)
		c.join(paid, nil)
		waiting := c.join(kind, object{"resourceFilters": object{"category": "doctors", "resources": []string{room, other}}}).str("id")
		refused(kind, object{"resourceFilters": object{"category": "rooms"}})
		refused(kind, object{"resourceFilters": object{"resource": other}})
		for _, off := range []object{{"on": false}, {"on": true, "activated": false}} {
			c.staff(http.MethodPut, "/management/resources/"+room, off).ok()
			refused(kind, nil)
		}
		assert.Equal(t, "PENDING_ASSIGNMENT", c.staff(http.MethodGet, "/management/bookings/"+waiting, nil).ok().str("result.status"))
		c.staff(http.MethodPut, "/management/resources/"+room, object{"activated": true}).ok()
		assert.Equal(t, "A002", c.join(kind, nil).str("ticket"), "no number is lost")
		c.staff(http.MethodDelete, "/management/resources/"+room, nil).ok()
		patient := c.patient("+966500000041")
		h.unchanged(request{method: http.MethodPut, path: "/customer/scheduling/new", token: patient, body: joining(kind, nil)}).
			refused(http.StatusConflict, models.CodeNobodyServes)
	})
}

func TestTypesHaveATimeoutOfTheirOwn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		c.newResource(nil, kind)
		minutes := func() int {
			t.Helper()
			return scalar[int](h, "SELECT assignment_timeout FROM bookings WHERE id = ?", c.join(kind, nil).str("id"))
		}
		path := "/management/types/" + kind
		assert.Equal(t, 180, c.staff(http.MethodGet, path, nil).ok().num("result.queueTimeoutMinutes"))
		assert.Equal(t, 180, minutes())
		for given, want := range map[int]int{45: 45, 0: 5, -1: 5, 1000: 180} {
			assert.Equal(t, want, c.staff(http.MethodPut, path, object{"queueTimeoutMinutes": given}).ok().num("result.queueTimeoutMinutes"))
			assert.Equal(t, want, minutes())
		}
		c.staff(http.MethodPut, path, object{"queueTimeoutMinutes": 45}).ok()
		c.staff(http.MethodPut, path, object{"minutes": 20}).ok()
		assert.Equal(t, 45, minutes(), "omitted, it is unchanged")
		asked := c.join(kind, object{"assignmentTimeout": 20}).str("id")
		assert.Equal(t, 20, scalar[int](h, "SELECT assignment_timeout FROM bookings WHERE id = ?", asked))
		short := c.newType(object{"queueTimeoutMinutes": 1})
		assert.Equal(t, 5, c.staff(http.MethodGet, "/management/types/"+short, nil).ok().num("result.queueTimeoutMinutes"))
	})
}
