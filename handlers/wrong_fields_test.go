package handlers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

// A wrong field is named as the caller wrote it.
func TestWrongFieldsHaveTheNamesOfTheRequest(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		patient := c.patient("+966500000051")
		long := strings.Repeat("é", 150)
		post, put := http.MethodPost, http.MethodPut
		for _, test := range []struct {
			method, path, token string
			body                object
			field               string
		}{
			{post, "/management/resources", c.key, object{"name": "A", "providerPhone": "12"}, "providerPhone"},
			{put, "/management/resources/" + room, c.key, object{"providerEmail": "mail"}, "providerEmail"},
			{put, "/management/scheduling/new", c.key, joining(kind, object{"customerIdentifier": object{"phone": "12"}}), "customerIdentifier.phone"},
			{put, "/management/scheduling/new", c.key, joining(kind, object{"customerIdentifier": object{"email": "mail"}}), "customerIdentifier.email"},
			{
				put, "/management/scheduling/new", c.key,
				joining(kind, object{"customerIdentifier": object{"phone": "+966500000052", "lastName": long}}), "customerIdentifier.lastName",
			},
			{put, "/customer/scheduling/new", patient, joining(kind, object{"lastName": long}), "lastName"},
			{put, "/customer/profile", patient, object{"phone": "12"}, "phone"},
			{put, "/customer/profile", patient, object{"lastName": long}, "lastName"},
			{post, "/management/members", c.key, object{"role": "provider", "phone": "12"}, "phone"},
			{post, "/management/members", c.key, object{"role": "provider", "email": "mail"}, "email"},
			{post, "/management/members", c.key, object{"role": "provider", "phone": "+966500000053", "lastName": long}, "lastName"},
			{post, "/auth/otp/request", "", object{"method": "sms", "phoneNumber": "12"}, "phoneNumber"},
		} {
			a := h.send(request{method: test.method, path: test.path, token: test.token, app: c.id, body: test.body})
			a.refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{test.field}, a.wrongFields(), "%s: %s", test.path, a.raw)
		}
	})
}
