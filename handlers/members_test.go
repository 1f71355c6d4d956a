package handlers_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"nowserving/models"
)

const membersPath = "/management/members"

// hire makes a member through the front door.
func (c *clinic) hire(more object) answer {
	c.t.Helper()
	return c.staff(http.MethodPost, membersPath, more)
}

// TestMembersAreHiredChangedAndDismissed hires, changes and dismisses people.
func TestMembersAreHiredChangedAndDismissed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c, elsewhere := h.newClinic(), h.newClinic()
		kind := c.newType(nil)
		one, two, three := c.newResource(object{"name": "One"}, kind), c.newResource(object{"name": "Two"}, kind), c.newResource(object{"name": "Three"}, kind)
		theirs := elsewhere.newResource(nil, elsewhere.newType(nil))
		change := func(id string, body object) answer { return c.staff(http.MethodPut, membersPath+"/"+id, body) }
		actsFor := func(id string) any {
			return c.staff(http.MethodGet, "/management/resources/"+id, nil).ok().at("result.providerId")
		}

		sarah := c.hire(object{"phone": "+966 50 000 0401", "role": "provider", "firstName": "Sarah", "lastName": "Johnson", "resources": []string{two, one}}).ok()
		id := sarah.str("result.id")
		assert.Equal(t, "+966500000401", sarah.str("result.phone"), "in the one form")
		assert.ElementsMatch(t, []any{one, two}, sarah.list("result.resources"))
		omar := c.hire(object{"email": "Omar@Example.com", "role": "receptionist"}).ok()
		assert.Equal(t, "omar@example.com", omar.str("result.email"))
		assert.Empty(t, omar.list("result.resources"))
		list := c.staff(http.MethodGet, membersPath, nil).ok()
		assert.Equal(t, []string{id, omar.str("result.id")}, list.pluck("result", "id"))
		assert.ElementsMatch(t, []any{one, two}, list.list("result.0.resources"))
		assert.Equal(t, false, list.at("pagination.hasMore"))
		assert.Empty(t, elsewhere.staff(http.MethodGet, membersPath, nil).ok().list("result"))

		// A resource names one provider: the last who was given it.
		session := c.signIn("+966500000401", true)
		assert.ElementsMatch(t, []any{one, two}, session.at("user.resourceIds"))
		mine := func() []string {
			return h.send(request{method: http.MethodGet, path: "/management/resources/mine", token: session.str("accessToken")}).ok().pluck("result", "id")
		}
		assert.ElementsMatch(t, []any{three, one}, change(omar.str("result.id"), object{"resources": []string{one, three}}).ok().list("result.resources"))
		assert.Equal(t, []string{two}, mine(), "and who had it is still signed in")
		assert.Equal(t, "Sarah", change(id, object{"lastName": "Al-Ali"}).ok().str("result.firstName"), "what is absent stays")
		assert.Equal(t, []any{two}, change(id, object{}).ok().list("result.resources"))
		assert.Empty(t, change(id, object{"resources": []string{}}).ok().list("result.resources"))
		assert.Empty(t, mine())
		assert.Nil(t, actsFor(two))
		change(id, object{"resources": []string{two}}).ok()

		// Nobody and nothing of another tenant, no second member with an address.
		change(id, object{"resources": []string{two, theirs}}).refused(http.StatusNotFound, models.CodeResourceMissing)
		assert.Equal(t, id, actsFor(two), "nothing was changed")
		elsewhere.staff(http.MethodPut, membersPath+"/"+id, object{"firstName": "Eve"}).refused(http.StatusNotFound, models.CodeMemberMissing)
		elsewhere.staff(http.MethodDelete, membersPath, object{"id": id}).refused(http.StatusNotFound, models.CodeMemberMissing)
		c.hire(object{"phone": "+966500000401", "role": "admin"}).refused(http.StatusConflict, models.CodeMemberTaken)
		change(omar.str("result.id"), object{"phone": "+966500000401"}).refused(http.StatusConflict, models.CodeMemberTaken)
		for field, wrong := range map[string]object{
			"phone":     {"role": "admin"},
			"role":      {"phone": "+966500000409", "role": "chief"},
			"email":     {"email": "no address", "role": "admin"},
			"resources": {"phone": "+966500000409", "role": "admin", "resources": "all"},
		} {
			assert.Equal(t, field, c.hire(wrong).refused(http.StatusUnprocessableEntity, models.CodeInvalid).str("errors.0.field"))
		}
		c.hire(object{"phone": "+966500000409"}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)
		change(id, object{"phone": ""}).refused(http.StatusUnprocessableEntity, models.CodeInvalid)

		// Another role, another address, no place any more: the sessions end.
		for _, after := range []func() answer{
			func() answer { return change(id, object{"role": "admin"}) },
			func() answer { return change(id, object{"phone": "+966500000402"}) },
			func() answer { return change(id, object{"phone": "+966500000401", "role": "provider"}) },
			func() answer { return c.staff(http.MethodDelete, membersPath, object{"id": id}) },
		} {
			phone := c.staff(http.MethodGet, membersPath, nil).ok().str("result.0.phone")
			session = c.signIn(phone, true)
			gone := h.attach(session.str("accessToken"))
			after().ok()
			h.send(request{method: http.MethodGet, path: "/management/types", token: session.str("accessToken")}).refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			h.send(request{method: http.MethodPost, path: "/auth/token", body: object{"refreshToken": session.str("refreshToken")}}).
				refused(http.StatusUnauthorized, models.CodeUnauthenticated)
			select {
			case e := <-gone:
				assert.EqualValues(t, 3501, e.Code)
			case <-time.After(dropTime):
				t.Error("a live connection goes on")
			}
		}
		assert.Nil(t, actsFor(two), "who is gone acts for nothing")
		change(id, object{"firstName": "Ghost"}).refused(http.StatusNotFound, models.CodeMemberMissing)
		assert.Equal(t, 1, scalar[int](h, "SELECT COUNT(*) FROM audit WHERE action = 'deleteMember' AND subject_kind = 'member' AND subject_id = ? AND organization_id = ?", id, c.id))
	})
}

// TestOnlyOwnersChangeOwnersAndOneStays: only owners and keys change owners, and one always stays.
func TestOnlyOwnersChangeOwnersAndOneStays(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, h *house) {
		c := h.newClinic()
		as := func(token, method, path string, body object) answer {
			return h.send(request{method: method, path: path, token: token, body: body})
		}
		first := c.hire(object{"phone": "+966500000411", "role": "owner"}).ok().str("result.id")
		owner := c.signIn("+966500000411", true).str("accessToken")
		second := as(owner, http.MethodPost, membersPath, object{"phone": "+966500000412", "role": "owner"}).ok().str("result.id")
		boss := as(owner, http.MethodPost, membersPath, object{"phone": "+966500000413", "role": "admin"}).ok().str("result.id")
		admin := c.signIn("+966500000413", true).str("accessToken")

		before := c.staff(http.MethodGet, membersPath, nil).ok()
		for _, body := range []object{{"role": "admin"}, {"firstName": "Eve"}, {"phone": "+966500000666"}} {
			as(admin, http.MethodPut, membersPath+"/"+first, body).refused(http.StatusForbidden, models.CodeForbidden)
		}
		as(admin, http.MethodPut, membersPath+"/"+boss, object{"role": "owner"}).refused(http.StatusForbidden, models.CodeForbidden)
		as(admin, http.MethodPost, membersPath, object{"phone": "+966500000414", "role": "owner"}).refused(http.StatusForbidden, models.CodeForbidden)
		as(admin, http.MethodDelete, membersPath, object{"id": second}).refused(http.StatusForbidden, models.CodeForbidden)
		as(admin, http.MethodDelete, membersPath, object{"id": boss}).refused(http.StatusConflict, models.CodeMemberSelf)
		as(owner, http.MethodDelete, membersPath, object{"id": first}).refused(http.StatusConflict, models.CodeMemberSelf)
		assert.JSONEq(t, string(before.raw), string(c.staff(http.MethodGet, membersPath, nil).ok().raw))

		// Two who go at the same moment are told apart.
		answers := h.atOnce(2, func(i int) request {
			return request{method: http.MethodDelete, path: membersPath, token: c.key, body: object{"id": []string{first, second}[i]}}
		})
		gone := 0
		for _, a := range answers {
			if a.status == http.StatusOK {
				gone++
			} else {
				a.refused(http.StatusConflict, models.CodeLastOwner)
			}
		}
		assert.Equal(t, 1, gone)
		left := scalar[string](h, "SELECT id FROM members WHERE organization_id = ? AND role = 'owner'", c.id)
		c.staff(http.MethodPut, membersPath+"/"+left, object{"role": "admin"}).refused(http.StatusConflict, models.CodeLastOwner)
		c.staff(http.MethodPut, membersPath+"/"+boss, object{"role": "owner"}).ok()
		assert.Equal(t, "admin", c.staff(http.MethodPut, membersPath+"/"+left, object{"role": "admin"}).ok().str("result.role"))
	})
}
