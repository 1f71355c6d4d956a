package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

func TestPricesAndPercentagesAreDecimals(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nodetest.Object{"price": "150"})
		path := "/management/types/" + kind
		right := nodetest.Object{"oldPrice": "200", "priceIncrease": "12.50", "depositAmount": "150.00", "depositPercentage": "100"}
		a := c.Staff(http.MethodPut, path, right).OK()
		for name, want := range map[string]string{
			"price": "150.00", "oldPrice": "200.00", "priceIncrease": "12.50", "depositAmount": "150.00", "depositPercentage": "100",
		} {
			assert.Equal(t, want, a.Str("result."+name), name)
		}
		for _, wrong := range []struct{ field, value string }{
			{"price", "1.5"}, {"price", "-1.00"},
			{"oldPrice", "cheap"}, {"oldPrice", "1.5"},
			{"priceIncrease", "10%"}, {"priceIncrease", "-5"},
			{"depositAmount", "1,00"}, {"depositAmount", "150.01"},
			{"depositPercentage", "abc"}, {"depositPercentage", "100.01"}, {"depositPercentage", "-1"},
		} {
			refused := h.Unchanged(nodetest.Request{Method: http.MethodPut, Path: path, Token: c.Key, Body: nodetest.Object{wrong.field: wrong.value}})
			refused.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{wrong.field}, refused.WrongFields(), wrong.value)
		}
		c.Staff(http.MethodPut, path, nodetest.Object{"price": "100.00"}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		c.Staff(http.MethodPut, path, nodetest.Object{"price": "100.00", "depositAmount": "100.00"}).OK()
		c.Staff(http.MethodPut, path, nodetest.Object{"depositAmount": "", "price": ""}).OK()
	})
}
