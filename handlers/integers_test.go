package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
)

// 10.0 and 1e1 are integers in JSON Schema.
func TestANumberWithoutAFractionIsAnInteger(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.staff(http.MethodPost, "/management/types", `{"name": "A", "minutes": 1e1, "comeNowAtPosition": 2.0, "comeNowAtMinutes": 30.00,
			"schedule": {"exact": 12345678901234567890, "half": 0.50, "whole": 7.0}}`).ok()
		assert.Equal(t, 10, kind.num("result.minutes"))
		assert.Equal(t, 2, kind.num("result.comeNowAtPosition"))
		assert.Equal(t, 30, kind.num("result.comeNowAtMinutes"))
		assert.Contains(t, string(kind.raw), `"exact":12345678901234567890`)
		assert.Contains(t, string(kind.raw), `"half":0.50`)
		assert.Contains(t, string(kind.raw), `"whole":7.0`)
		c.newResource(nil, kind.str("result.id"))
		booked := c.staff(http.MethodPut, "/management/scheduling/new",
			`{"type": "`+kind.str("result.id")+`", "date": "`+day(3)+`", "time": 1800.0, "priority": 3.0}`).ok()
		assert.Equal(t, 1800, booked.num("startTime"))
		assert.Equal(t, 3, booked.num("priority"))
		shown := h.send(request{method: http.MethodPost, path: "/availability/types", app: c.id, body: `{"limit": 1.0}`}).ok()
		assert.Len(t, shown.list("result"), 1)
		for _, minutes := range []string{"10.5", "1e-1", "1e400", "1e300", "10000000000000000000000.0", `"10"`} {
			a := c.staff(http.MethodPut, "/management/types/"+kind.str("result.id"), `{"minutes": `+minutes+`}`)
			assert.Contains(t, []int{http.StatusBadRequest, http.StatusUnprocessableEntity}, a.status, minutes)
		}
	})
}
