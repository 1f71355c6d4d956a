package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
)

// 10.0 and 1e1 are integers in JSON Schema.
func TestANumberWithoutAFractionIsAnInteger(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.Staff(http.MethodPost, "/management/types", `{"name": "A", "minutes": 1e1, "comeNowAtPosition": 2.0, "comeNowAtMinutes": 30.00,
			"schedule": {"exact": 12345678901234567890, "half": 0.50, "whole": 7.0}}`).OK()
		assert.Equal(t, 10, kind.Num("result.minutes"))
		assert.Equal(t, 2, kind.Num("result.comeNowAtPosition"))
		assert.Equal(t, 30, kind.Num("result.comeNowAtMinutes"))
		assert.Contains(t, string(kind.Raw), `"exact":12345678901234567890`)
		assert.Contains(t, string(kind.Raw), `"half":0.50`)
		assert.Contains(t, string(kind.Raw), `"whole":7.0`)
		c.NewResource(nil, kind.Str("result.id"))
		booked := c.Staff(http.MethodPut, "/management/scheduling/new",
			`{"type": "`+kind.Str("result.id")+`", "date": "`+nodetest.Day(3)+`", "time": 1800.0, "priority": 3.0}`).OK()
		assert.Equal(t, 1800, booked.Num("startTime"))
		assert.Equal(t, 3, booked.Num("priority"))
		shown := h.Send(nodetest.Request{Method: http.MethodPost, Path: "/availability/types", App: c.ID, Body: `{"limit": 1.0}`}).OK()
		assert.Len(t, shown.List("result"), 1)
		for _, minutes := range []string{"10.5", "1e-1", "1e400", "1e300", "10000000000000000000000.0", `"10"`} {
			a := c.Staff(http.MethodPut, "/management/types/"+kind.Str("result.id"), `{"minutes": `+minutes+`}`)
			assert.Contains(t, []int{http.StatusBadRequest, http.StatusUnprocessableEntity}, a.Status, minutes)
		}
	})
}
