package access_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"nowserving/cmd/nowserving/node/nodetest"
	"nowserving/models"
)

// TestMembersAreHiredChangedAndDismissed hires, changes and dismisses people.
func TestMembersAreHiredChangedAndDismissed(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c, elsewhere := h.NewClinic(), h.NewClinic()
		kind := c.NewType(nil)
		one, two, three := c.NewResource(nodetest.Object{"name": "One"}, kind), c.NewResource(nodetest.Object{"name": "Two"}, kind), c.NewResource(nodetest.Object{"name": "Three"}, kind)
		theirs := elsewhere.NewResource(nil, elsewhere.NewType(nil))
		change := func(id string, body nodetest.Object) nodetest.Response {
			return c.Staff(http.MethodPut, nodetest.MembersPath+"/"+id, body)
		}
		actsFor := func(id string) any {
			return c.Staff(http.MethodGet, "/management/resources/"+id, nil).OK().At("result.providerId")
		}

		sarah := nodetest.Hire(c, nodetest.Object{"phone": "+966 50 000 0401", "role": "provider", "firstName": "Sarah", "lastName": "Johnson", "resources": []string{two, one}}).OK()
		id := sarah.Str("result.id")
		assert.Equal(t, "+966500000401", sarah.Str("result.phone"), "in the one form")
		assert.ElementsMatch(t, []any{one, two}, sarah.List("result.resources"))
		omar := nodetest.Hire(c, nodetest.Object{"email": "Omar@Example.com", "role": "receptionist"}).OK()
		assert.Equal(t, "omar@example.com", omar.Str("result.email"))
		assert.Empty(t, omar.List("result.resources"))
		list := c.Staff(http.MethodGet, nodetest.MembersPath, nil).OK()
		assert.Equal(t, []string{id, omar.Str("result.id")}, list.Pluck("result", "id"))
		assert.ElementsMatch(t, []any{one, two}, list.List("result.0.resources"))
		assert.Equal(t, false, list.At("pagination.hasMore"))
		assert.Empty(t, elsewhere.Staff(http.MethodGet, nodetest.MembersPath, nil).OK().List("result"))

		// A resource names one provider: the last who was given it.
		session := c.SignIn("+966500000401", true)
		assert.ElementsMatch(t, []any{one, two}, session.At("user.resourceIds"))
		mine := func() []string {
			return h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/resources/mine", Token: session.Str("accessToken")}).OK().Pluck("result", "id")
		}
		assert.ElementsMatch(t, []any{three, one}, change(omar.Str("result.id"), nodetest.Object{"resources": []string{one, three}}).OK().List("result.resources"))
		assert.Equal(t, []string{two}, mine(), "and who had it is still signed in")
		assert.Equal(t, "Sarah", change(id, nodetest.Object{"lastName": "Al-Ali"}).OK().Str("result.firstName"), "what is absent stays")
		assert.Equal(t, []any{two}, change(id, nodetest.Object{}).OK().List("result.resources"))
		assert.Empty(t, change(id, nodetest.Object{"resources": []string{}}).OK().List("result.resources"))
		assert.Empty(t, mine())
		assert.Nil(t, actsFor(two))
		change(id, nodetest.Object{"resources": []string{two}}).OK()

		// No member or resource of another organization, and no second member with an address.
		change(id, nodetest.Object{"resources": []string{two, theirs}}).Refused(http.StatusNotFound, models.CodeResourceMissing)
		assert.Equal(t, id, actsFor(two), "nothing was changed")
		elsewhere.Staff(http.MethodPut, nodetest.MembersPath+"/"+id, nodetest.Object{"firstName": "Eve"}).Refused(http.StatusNotFound, models.CodeMemberMissing)
		elsewhere.Staff(http.MethodDelete, nodetest.MembersPath, nodetest.Object{"id": id}).Refused(http.StatusNotFound, models.CodeMemberMissing)
		nodetest.Hire(c, nodetest.Object{"phone": "+966500000401", "role": "admin"}).Refused(http.StatusConflict, models.CodeMemberTaken)
		change(omar.Str("result.id"), nodetest.Object{"phone": "+966500000401"}).Refused(http.StatusConflict, models.CodeMemberTaken)
		for field, wrong := range map[string]nodetest.Object{
			"phone":     {"role": "admin"},
			"role":      {"phone": "+966500000409", "role": "chief"},
			"email":     {"email": "no address", "role": "admin"},
			"resources": {"phone": "+966500000409", "role": "admin", "resources": "all"},
		} {
			assert.Equal(t, field, nodetest.Hire(c, wrong).Refused(http.StatusUnprocessableEntity, models.CodeInvalid).Str("errors.0.field"))
		}
		nodetest.Hire(c, nodetest.Object{"phone": "+966500000409"}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		change(id, nodetest.Object{"phone": ""}).Refused(http.StatusUnprocessableEntity, models.CodeInvalid)

		// Another role, another address, no place any more: the sessions end.
		for _, after := range []func() nodetest.Response{
			func() nodetest.Response { return change(id, nodetest.Object{"role": "admin"}) },
			func() nodetest.Response { return change(id, nodetest.Object{"phone": "+966500000402"}) },
			func() nodetest.Response {
				return change(id, nodetest.Object{"phone": "+966500000401", "role": "provider"})
			},
			func() nodetest.Response {
				return c.Staff(http.MethodDelete, nodetest.MembersPath, nodetest.Object{"id": id})
			},
		} {
			phone := c.Staff(http.MethodGet, nodetest.MembersPath, nil).OK().Str("result.0.phone")
			session = c.SignIn(phone, true)
			gone := nodetest.Attach(h, session.Str("accessToken"))
			after().OK()
			h.Send(nodetest.Request{Method: http.MethodGet, Path: "/management/types", Token: session.Str("accessToken")}).Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			h.Send(nodetest.Request{Method: http.MethodPost, Path: "/auth/token", Body: nodetest.Object{"refreshToken": session.Str("refreshToken")}}).
				Refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			select {
			case e := <-gone:
				assert.EqualValues(t, 3501, e.Code)
			case <-time.After(nodetest.DropTime):
				t.Error("a live connection goes on")
			}
		}
		assert.Nil(t, actsFor(two), "who is gone acts for nothing")
		change(id, nodetest.Object{"firstName": "Ghost"}).Refused(http.StatusNotFound, models.CodeMemberMissing)
		assert.Equal(t, 1, nodetest.Scalar[int](h, "SELECT COUNT(*) FROM audit WHERE action = 'deleteMember' AND subject_kind = 'member' AND subject_id = ? AND organization_id = ?", id, c.ID))
	})
}

// TestOnlyOwnersChangeOwnersAndOneStays: only owners and keys change owners, and one always stays.
func TestOnlyOwnersChangeOwnersAndOneStays(t *testing.T) {
	t.Parallel()
	nodetest.OnBoth(t, func(t *testing.T, h *nodetest.Node) {
		c := h.NewClinic()
		as := func(token, method, path string, body nodetest.Object) nodetest.Response {
			return h.Send(nodetest.Request{Method: method, Path: path, Token: token, Body: body})
		}
		first := nodetest.Hire(c, nodetest.Object{"phone": "+966500000411", "role": "owner"}).OK().Str("result.id")
		owner := c.SignIn("+966500000411", true).Str("accessToken")
		second := as(owner, http.MethodPost, nodetest.MembersPath, nodetest.Object{"phone": "+966500000412", "role": "owner"}).OK().Str("result.id")
		boss := as(owner, http.MethodPost, nodetest.MembersPath, nodetest.Object{"phone": "+966500000413", "role": "admin"}).OK().Str("result.id")
		admin := c.SignIn("+966500000413", true).Str("accessToken")

		before := c.Staff(http.MethodGet, nodetest.MembersPath, nil).OK()
		for _, body := range []nodetest.Object{{"role": "admin"}, {"firstName": "Eve"}, {"phone": "+966500000666"}} {
			as(admin, http.MethodPut, nodetest.MembersPath+"/"+first, body).Refused(http.StatusForbidden, models.CodeForbidden)
		}
		as(admin, http.MethodPut, nodetest.MembersPath+"/"+boss, nodetest.Object{"role": "owner"}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(admin, http.MethodPost, nodetest.MembersPath, nodetest.Object{"phone": "+966500000414", "role": "owner"}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(admin, http.MethodDelete, nodetest.MembersPath, nodetest.Object{"id": second}).Refused(http.StatusForbidden, models.CodeForbidden)
		as(admin, http.MethodDelete, nodetest.MembersPath, nodetest.Object{"id": boss}).Refused(http.StatusConflict, models.CodeMemberSelf)
		as(owner, http.MethodDelete, nodetest.MembersPath, nodetest.Object{"id": first}).Refused(http.StatusConflict, models.CodeMemberSelf)
		assert.JSONEq(t, string(before.Raw), string(c.Staff(http.MethodGet, nodetest.MembersPath, nil).OK().Raw))

		// Of two owners who are deleted at the same moment, one stays.
		answers := nodetest.AtOnce(h, 2, func(i int) nodetest.Request {
			return nodetest.Request{Method: http.MethodDelete, Path: nodetest.MembersPath, Token: c.Key, Body: nodetest.Object{"id": []string{first, second}[i]}}
		})
		gone := 0
		for _, a := range answers {
			if a.Status == http.StatusOK {
				gone++
			} else {
				a.Refused(http.StatusConflict, models.CodeLastOwner)
			}
		}
		assert.Equal(t, 1, gone)
		left := nodetest.Scalar[string](h, "SELECT id FROM members WHERE organization_id = ? AND role = 'owner'", c.ID)
		c.Staff(http.MethodPut, nodetest.MembersPath+"/"+left, nodetest.Object{"role": "admin"}).Refused(http.StatusConflict, models.CodeLastOwner)
		c.Staff(http.MethodPut, nodetest.MembersPath+"/"+boss, nodetest.Object{"role": "owner"}).OK()
		assert.Equal(t, "admin", c.Staff(http.MethodPut, nodetest.MembersPath+"/"+left, nodetest.Object{"role": "admin"}).OK().Str("result.role"))
	})
}
