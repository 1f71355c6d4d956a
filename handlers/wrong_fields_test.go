package handlers_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// A wrong field is named as the caller wrote it.
func TestWrongFieldsHaveTheNamesOfTheRequest(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		patient := c.Patient("+966500000051")
		long := strings.Repeat("é", 150)
		post, put := http.MethodPost, http.MethodPut
		for _, test := range []struct {
			method, path, token string
			body                nodetest.Object
			field               string
		}{
			{post, "/management/resources", c.Key, nodetest.Object{"name": "A", "providerPhone": "12"}, "providerPhone"},
			{put, "/management/resources/" + room, c.Key, nodetest.Object{"providerEmail": "mail"}, "providerEmail"},
			{put, "/management/scheduling/new", c.Key, nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "12"}}), "customerIdentifier.phone"},
			{put, "/management/scheduling/new", c.Key, nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"email": "mail"}}), "customerIdentifier.email"},
			{
				put, "/management/scheduling/new", c.Key,
				nodetest.Joining(kind, nodetest.Object{"customerIdentifier": nodetest.Object{"phone": "+966500000052", "lastName": long}}), "customerIdentifier.lastName",
			},
			{put, "/customer/scheduling/new", patient, nodetest.Joining(kind, nodetest.Object{"lastName": long}), "lastName"},
			{put, "/customer/profile", patient, nodetest.Object{"phone": "12"}, "phone"},
			{put, "/customer/profile", patient, nodetest.Object{"lastName": long}, "lastName"},
			{post, "/management/members", c.Key, nodetest.Object{"role": "provider", "phone": "12"}, "phone"},
			{post, "/management/members", c.Key, nodetest.Object{"role": "provider", "email": "mail"}, "email"},
			{post, "/management/members", c.Key, nodetest.Object{"role": "provider", "phone": "+966500000053", "lastName": long}, "lastName"},
			{post, "/auth/otp/request", "", nodetest.Object{"method": "sms", "phoneNumber": "12"}, "phoneNumber"},
		} {
			a := h.Send(nodetest.Request{Method: test.method, Path: test.path, Token: test.token, App: c.ID, Body: test.body})
			a.Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			assert.Equal(t, []string{test.field}, a.WrongFields(), "%s: %s", test.path, a.Raw)
		}
	})
}
