package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

func TestPricesAndPercentagesAreDecimals(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(object{"price": "150"})
		path := "/management/types/" + kind
		right := object{"oldPrice": "200", "priceIncrease": "12.50", "depositAmount": "150.00", "depositPercentage": "100"}
		a := c.staff(http.MethodPut, path, right).ok()
		for name, want := range map[string]string{
			"price": "150.00", "oldPrice": "200.00", "priceIncrease": "12.50", "depositAmount": "150.00", "depositPercentage": "100",
		} {
			assert.Equal(t, want, a.str("result."+name), name)
		}
		for _, wrong := range []struct{ field, value string }{
			{"price", "1.5"}, {"price", "-1.00"},
			{"oldPrice", "cheap"}, {"oldPrice", "1.5"},
			{"priceIncrease", "10%"}, {"priceIncrease", "-5"},
			{"depositAmount", "1,00"}, {"depositAmount", "150.01"},
			{"depositPercentage", "abc"}, {"depositPercentage", "100.01"}, {"depositPercentage", "-1"},
		} {
			refused := h.unchanged(request{method: http.MethodPut, path: path, token: c.key, body: object{wrong.field: wrong.value}})
			refused.refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{wrong.field}, refused.wrongFields(), wrong.value)
		}
		c.staff(http.MethodPut, path, object{"price": "100.00"}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		c.staff(http.MethodPut, path, object{"price": "100.00", "depositAmount": "100.00"}).ok()
		c.staff(http.MethodPut, path, object{"depositAmount": "", "price": ""}).ok()
	})
}
