package handlers_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/models"
)

// TestNamingAProviderTakesTheScopeAdmin: a key that may only write makes no
// member, and a request that is refused leaves none.
func TestNamingAProviderTakesTheScopeAdmin(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		kind := c.newType(nil)
		room := c.newResource(nil, kind)
		doctor := c.hire(object{"phone": "+966500000861", "role": "provider", "resources": []string{room}}).ok().str("result.id")
		key := c.staff(http.MethodPost, keysPath, object{"name": "kiosk", "scopes": []string{"write"}}).ok().str("result.key")
		write := func(method, path string, body object) answer {
			return h.send(request{method: method, path: path, token: key, body: body})
		}
		before := h.contents()
		for _, provider := range []object{{"providerPhone": "+966500000862"}, {"providerEmail": "eve@clinic.example"}, {"providerPhone": ""}} {
			body := object{"name": "Room", "types": []string{kind}}
			for k, v := range provider {
				body[k] = v
			}
			write(http.MethodPost, "/management/resources", body).refused(http.StatusForbidden, models.CodeScope)
			write(http.MethodPut, "/management/resources/"+room, provider).refused(http.StatusForbidden, models.CodeScope)
		}
		write(http.MethodPost, "/management/displays", object{"name": "Hall"}).refused(http.StatusForbidden, models.CodeScope)

		// With the scope, but refused for another reason.
		for field, wrong := range map[string]object{
			"types":         {"name": "Room", "providerPhone": "+966500000862", "types": []string{"nothing"}},
			"name":          {"providerPhone": "+966500000862"},
			"providerPhone": {"name": "Room", "providerPhone": "12"},
			"providerEmail": {"name": "Room", "providerEmail": "no address"},
		} {
			assert.Equal(t, field, c.staff(http.MethodPost, "/management/resources", wrong).refused(http.StatusUnprocessableEntity, models.CodeInvalid).str("errors.0.field"))
			wrong["name"] = "Room"
			if field != "name" {
				c.staff(http.MethodPut, "/management/resources/"+room, wrong).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			}
		}
		c.staff(http.MethodPut, "/management/resources/nothing", object{"providerPhone": "+966500000862"}).refused(http.StatusNotFound, models.CodeResourceMissing)
		require.Equal(t, before, h.contents(), "nothing was changed")

		write(http.MethodPut, "/management/resources/"+room, object{"on": false}).ok()
		assert.Equal(t, doctor, c.staff(http.MethodGet, "/management/resources/"+room, nil).ok().str("result.providerId"))
		admin := c.member(models.RoleAdmin, "+966500000863")
		named := h.send(request{method: http.MethodPut, path: "/management/resources/" + room, token: admin, body: object{"providerPhone": "+966500000862"}}).ok()
		assert.NotEqual(t, doctor, named.str("result.providerId"))
	})
}
