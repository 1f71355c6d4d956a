package handlers_test

import (
	"net/http"
	"testing"
	"time"

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

// TestKeysLoseWithTheirMaker: the keys of a member who is no owner or admin any
// more go on reading and writing, on every node, and do no more.
func TestKeysLoseWithTheirMaker(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		far := h
		if h.server != nil {
			far = h.beside(nil)
		}
		c := h.newClinic()
		c.hire(object{"phone": "+966500000870", "role": "owner"}).ok()
		mint := func(token, name string, scopes ...string) string {
			body := object{"name": name}
			if scopes != nil {
				body["scopes"] = scopes
			}
			return h.send(request{method: http.MethodPost, path: keysPath, token: token, body: body}).ok().str("result.key")
		}
		for i, gone := range []struct {
			name  string
			leave func(id string) answer
		}{
			{"deleted", func(id string) answer { return c.staff(http.MethodDelete, membersPath, object{"id": id}) }},
			{"demoted", func(id string) answer {
				return c.staff(http.MethodPut, membersPath+"/"+id, object{"role": "receptionist"})
			}},
		} {
			phone := []string{"+966500000871", "+966500000872"}[i]
			id := c.hire(object{"phone": phone, "role": "admin", "firstName": "Eve"}).ok().str("result.id")
			own := mint(c.signIn(phone, true).str("accessToken"), gone.name)
			second := mint(own, gone.name+", by the key")
			reader := mint(own, gone.name+", to read", "read")
			listed := func(name string) object {
				for _, one := range c.staff(http.MethodGet, keysPath, nil).ok().list("result") {
					if key, ok := one.(object); ok && key["name"] == name {
						return key
					}
				}
				return nil
			}
			assert.Equal(t, object{"kind": "member", "id": id, "name": "Eve"}, listed(gone.name)["createdBy"])
			assert.Equal(t, "organization", at(listed(gone.name+", by the key"), "createdBy.kind"))
			assert.Equal(t, gone.name, at(listed(gone.name+", by the key"), "createdBy.name"))
			for _, node := range []*house{h, far} {
				node.send(request{method: http.MethodGet, path: membersPath, token: own}).ok()
				node.send(request{method: http.MethodGet, path: membersPath, token: second}).ok()
			}
			gone.leave(id).ok()
			for _, key := range []string{own, second} {
				r := request{method: http.MethodPost, path: membersPath, token: key, body: object{"phone": "+966500000879", "role": "admin"}}
				h.send(r).refused(http.StatusForbidden, models.CodeKeyReduced)
				require.Eventually(t, func() bool { return far.send(r).status == http.StatusForbidden }, dropTime, 20*time.Millisecond)
				h.send(request{method: http.MethodPost, path: keysPath, token: key, body: object{"name": "more"}}).refused(http.StatusForbidden, models.CodeKeyReduced)
				h.send(request{method: http.MethodPost, path: "/management/types", token: key, body: object{"name": "More", "minutes": 5}}).ok()
			}
			h.send(request{method: http.MethodGet, path: membersPath, token: reader}).refused(http.StatusForbidden, models.CodeScope)
			h.send(keyed(reader)).ok()
			assert.Equal(t, true, listed(gone.name)["reduced"])
			assert.Equal(t, false, listed(gone.name + ", to read")["reduced"])

			// Another member takes it over.
			taken := c.staff(http.MethodPost, keysPath+"/rotate", object{"name": gone.name}).ok()
			assert.Equal(t, false, taken.at("result.reduced"))
			h.send(request{method: http.MethodGet, path: membersPath, token: taken.str("result.key")}).ok()
			h.send(request{method: http.MethodGet, path: membersPath, token: own}).refused(http.StatusForbidden, models.CodeKeyReduced)
		}

		// An owner who is an admin now takes their keys along.
		boss := c.hire(object{"phone": "+966500000873", "role": "owner"}).ok().str("result.id")
		key := mint(c.signIn("+966500000873", true).str("accessToken"), "boss")
		h.send(request{method: http.MethodGet, path: "/management/audit", token: key}).ok()
		c.staff(http.MethodPut, membersPath+"/"+boss, object{"role": "admin"}).ok()
		h.send(request{method: http.MethodGet, path: "/management/audit", token: key}).refused(http.StatusForbidden, models.CodeForbidden)
		h.send(request{method: http.MethodPost, path: membersPath, token: key, body: object{"phone": "+966500000878", "role": "owner"}}).
			refused(http.StatusForbidden, models.CodeForbidden)
		h.send(request{method: http.MethodGet, path: membersPath, token: key}).ok()
	})
}
