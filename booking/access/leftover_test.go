package access_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// TestNamingAProviderTakesTheScopeAdmin: a key that may only write makes no
// member, and a request that is refused leaves none.
func TestNamingAProviderTakesTheScopeAdmin(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		kind := c.NewType(nil)
		room := c.NewResource(nil, kind)
		doctor := nodetest.Hire(c, nodetest.Object{"phone": "+966500000861", "role": "provider", "resources": []string{room}}).OK().Str("result.id")
		key := c.Staff(http.MethodPost, nodetest.KeysPath, nodetest.Object{"name": "kiosk", "scopes": []string{"write"}}).OK().Str("result.key")
		write := func(method, path string, body nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: key, Body: body})
		}
		before := h.Contents()
		for _, provider := range []nodetest.Object{{"providerPhone": "+966500000862"}, {"providerEmail": "eve@clinic.example"}, {"providerPhone": ""}} {
			body := nodetest.Object{"name": "Room", "types": []string{kind}}
			for k, v := range provider {
				body[k] = v
			}
			write(http.MethodPost, "/management/resources", body).Refused(http.StatusForbidden, models.CodeScope)
			write(http.MethodPut, "/management/resources/"+room, provider).Refused(http.StatusForbidden, models.CodeScope)
		}
		write(http.MethodPost, "/management/displays", nodetest.Object{"name": "Hall"}).Refused(http.StatusForbidden, models.CodeScope)

		// With the scope, but refused for another reason.
		for field, wrong := range map[string]nodetest.Object{
			"types":         {"name": "Room", "providerPhone": "+966500000862", "types": []string{"nothing"}},
			"name":          {"providerPhone": "+966500000862"},
			"providerPhone": {"name": "Room", "providerPhone": "12"},
			"providerEmail": {"name": "Room", "providerEmail": "no address"},
		} {
			assert.Equal(t, field, c.Staff(http.MethodPost, "/management/resources", wrong).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).Str("errors.0.field"))
			wrong["name"] = "Room"
			if field != "name" {
				c.Staff(http.MethodPut, "/management/resources/"+room, wrong).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
			}
		}
		c.Staff(http.MethodPut, "/management/resources/nothing", nodetest.Object{"providerPhone": "+966500000862"}).Refused(http.StatusNotFound, models.CodeResourceMissing)
		require.Equal(t, before, h.Contents(), "nothing was changed")

		write(http.MethodPut, "/management/resources/"+room, nodetest.Object{"on": false}).OK()
		assert.Equal(t, doctor, c.Staff(http.MethodGet, "/management/resources/"+room, nil).OK().Str("result.providerId"))
		admin := c.Member(models.RoleAdmin, "+966500000863")
		named := h.Send(nodetest.Request{Method: http.MethodPut, Path: "/management/resources/" + room, Token: admin, Body: nodetest.Object{"providerPhone": "+966500000862"}}).OK()
		assert.NotEqual(t, doctor, named.Str("result.providerId"))
	})
}

// TestKeysLoseWithTheirMaker: the keys of a member who is no owner or admin any
// more go on reading and writing, on every node, and do no more.
func TestKeysLoseWithTheirMaker(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		far := h
		if h.RedisServer != nil {
			far = h.Beside(nil)
		}
		c := h.NewClinic()
		nodetest.Hire(c, nodetest.Object{"phone": "+966500000870", "role": "owner"}).OK()
		mint := func(token, name string, scopes ...string) string {
			body := nodetest.Object{"name": name}
			if scopes != nil {
				body["scopes"] = scopes
			}
			return h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.KeysPath, Token: token, Body: body}).OK().Str("result.key")
		}
		for i, gone := range []struct {
			name  string
			leave func(id string) nodetest.Response
		}{
			{"deleted", func(id string) nodetest.Response {
				return c.Staff(http.MethodDelete, nodetest.MembersPath, nodetest.Object{"id": id})
			}},
			{"demoted", func(id string) nodetest.Response {
				return c.Staff(http.MethodPut, nodetest.MembersPath+"/"+id, nodetest.Object{"role": "receptionist"})
			}},
		} {
			phone := []string{"+966500000871", "+966500000872"}[i]
			id := nodetest.Hire(c, nodetest.Object{"phone": phone, "role": "admin", "firstName": "Eve"}).OK().Str("result.id")
			own := mint(c.SignIn(phone, true).Str("accessToken"), gone.name)
			second := mint(own, gone.name+", by the key")
			reader := mint(own, gone.name+", to read", "read")
			listed := func(name string) nodetest.Object {
				for _, one := range c.Staff(http.MethodGet, nodetest.KeysPath, nil).OK().List("result") {
					if key, ok := one.(nodetest.Object); ok && key["name"] == name {
						return key
					}
				}
				return nil
			}
			assert.Equal(t, nodetest.Object{"kind": "member", "id": id, "name": "Eve"}, listed(gone.name)["createdBy"])
			assert.Equal(t, "organization", nodetest.At(listed(gone.name+", by the key"), "createdBy.kind"))
			assert.Equal(t, gone.name, nodetest.At(listed(gone.name+", by the key"), "createdBy.name"))
			for _, node := range []*nodetest.Node{h, far} {
				node.Send(nodetest.Request{Method: http.MethodGet, Path: nodetest.MembersPath, Token: own}).OK()
				node.Send(nodetest.Request{Method: http.MethodGet, Path: nodetest.MembersPath, Token: second}).OK()
			}
			gone.leave(id).OK()
			for _, key := range []string{own, second} {
				r := nodetest.Request{Method: http.MethodPost, Path: nodetest.MembersPath, Token: key, Body: nodetest.Object{"phone": "+966500000879", "role": "admin"}}
				h.Send(r).Refused(http.StatusForbidden, models.CodeKeyReduced)
				require.Eventually(t, func() bool { return far.Send(r).Status == http.StatusForbidden }, nodetest.DropTime, 20*time.Millisecond)
				h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.KeysPath, Token: key, Body: nodetest.Object{"name": "more"}}).Refused(http.StatusForbidden, models.CodeKeyReduced)
				h.Send(nodetest.Request{Method: http.MethodPost, Path: "/management/types", Token: key, Body: nodetest.Object{"name": "More", "minutes": 5}}).OK()
			}
			h.Send(nodetest.Request{Method: http.MethodGet, Path: nodetest.MembersPath, Token: reader}).Refused(http.StatusForbidden, models.CodeScope)
			h.Send(nodetest.Keyed(reader)).OK()
			assert.Equal(t, true, listed(gone.name)["reduced"])
			assert.Equal(t, false, listed(gone.name + ", to read")["reduced"])

			// Another member takes it over.
			taken := c.Staff(http.MethodPost, nodetest.KeysPath+"/rotate", nodetest.Object{"name": gone.name}).OK()
			assert.Equal(t, false, taken.At("result.reduced"))
			h.Send(nodetest.Request{Method: http.MethodGet, Path: nodetest.MembersPath, Token: taken.Str("result.key")}).OK()
			h.Send(nodetest.Request{Method: http.MethodGet, Path: nodetest.MembersPath, Token: own}).Refused(http.StatusForbidden, models.CodeKeyReduced)
		}

		// An owner who is an admin now takes their keys along.
		boss := nodetest.Hire(c, nodetest.Object{"phone": "+966500000873", "role": "owner"}).OK().Str("result.id")
		key := mint(c.SignIn("+966500000873", true).Str("accessToken"), "boss")
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/audit", Token: key}).OK()
		c.Staff(http.MethodPut, nodetest.MembersPath+"/"+boss, nodetest.Object{"role": "admin"}).OK()
		h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/audit", Token: key}).Refused(http.StatusForbidden, models.CodeForbidden)
		h.Send(nodetest.Request{Method: http.MethodPost, Path: nodetest.MembersPath, Token: key, Body: nodetest.Object{"phone": "+966500000878", "role": "owner"}}).
			Refused(http.StatusForbidden, models.CodeForbidden)
		h.Send(nodetest.Request{Method: http.MethodGet, Path: nodetest.MembersPath, Token: key}).OK()
	})
}
