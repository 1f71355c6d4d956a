package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/models"
)

// memberView is a member as those who manage members see them.
type memberView struct {
	ID            string        `json:"id"`
	Role          models.Role   `json:"role"`
	Phone         string        `json:"phone,omitempty"`
	Email         string        `json:"email,omitempty"`
	FirstName     string        `json:"firstName"`
	LastName      string        `json:"lastName"`
	Resources     []string      `json:"resources" nullable:"false" doc:"The ids of the resources they act for."`
	ViewConfirmed []string      `json:"viewConfirmed" nullable:"false" doc:"Besides these, the resources whose bookings a provider may look at."`
	ViewRequests  []string      `json:"viewRequests" nullable:"false" doc:"Likewise, those that others wait for."`
	CreatedAt     models.Moment `json:"createdAt"`
}

func viewMember(m *models.Member) memberView {
	return memberView{m.ID, m.Role, text(m.Phone), text(m.Email), m.FirstName, m.LastName, m.ResourceIDs, m.ViewConfirmed, m.ViewRequests, models.At(m.CreatedAt)}
}

// memberBody changes a member: what is absent stays.
type memberBody struct {
	Phone         *string      `json:"phone" maxLength:"40" example:"+966500000002" doc:"They sign in with it, or with the e-mail address."`
	Email         *string      `json:"email" maxLength:"254"`
	Role          *models.Role `json:"role" enum:"owner,admin,provider,receptionist,screen"`
	FirstName     *string      `json:"firstName" maxLength:"200"`
	LastName      *string      `json:"lastName" maxLength:"200"`
	Resources     *[]string    `json:"resources" maxItems:"200" doc:"The ids of the resources they act for, no others; each is taken from whom it had."`
	ViewConfirmed *[]string    `json:"viewConfirmed" maxItems:"200" doc:"Whose bookings a provider may look at besides, without acting for them: those that these resources have taken."`
	ViewRequests  *[]string    `json:"viewRequests" maxItems:"200" doc:"Likewise: those that wait for these resources."`
}

func (b memberBody) change(c caller) access.MemberChange {
	if b.Phone != nil {
		phone := c.international(*b.Phone)
		b.Phone = &phone
	}
	return access.MemberChange{
		Role: b.Role, Phone: b.Phone, Email: b.Email, FirstName: b.FirstName, LastName: b.LastName, ResourceIDs: b.Resources,
		ViewConfirmed: b.ViewConfirmed, ViewRequests: b.ViewRequests,
	}
}

func (s *Server) showMember(c caller, m *models.Member, err error) (result[memberView], error) {
	if err != nil {
		return result[memberView]{}, err
	}
	s.directory.forget(c.OrganizationID)
	return result[memberView]{viewMember(m)}, nil
}

type memberRef struct {
	ID string `json:"id" required:"true" minLength:"1" maxLength:"64"`
}

func (s *Server) memberRoutes() {
	example := map[string]any{"phone": "+966500000002", "role": "provider", "firstName": "Sarah", "lastName": "Johnson", "resources": []string{exampleID}}
	register(s, operation{
		method: http.MethodGet, path: "/management/members", id: "listMembers", tag: "Members", who: managers, scope: scopeAdmin,
		summary: "List members", about: "Everybody who works for the organization and may sign in.",
	}, func(ctx context.Context, c caller, in *paging) (list[memberView], error) {
		page := in.page()
		rows, err := s.o.Access.Members(ctx, c.OrganizationID, page)
		return listOf(rows, page.Limit, func(m *models.Member) string { return m.ID }, viewMember), err
	})
	register(s, operation{
		method: http.MethodPost, path: "/management/members", id: "createMember", tag: "Members", who: managers, scope: scopeAdmin,
		summary: "Make a member", about: "They sign in with a one-time code sent to their phone number or e-mail address. Only an owner or a key makes owners.",
		example: example,
	}, func(ctx context.Context, c caller, in *with[memberBody]) (result[memberView], error) {
		m, err := s.o.Access.CreateMember(ctx, c.Principal, c.OrganizationID, in.Body.change(c))
		return s.showMember(c, m, err)
	})
	type memberChange struct {
		ID   string `path:"id" maxLength:"64"`
		Body memberBody
	}
	register(s, operation{
		method: http.MethodPut, path: "/management/members/{id}", id: "updateMember", tag: "Members", who: managers, scope: scopeAdmin,
		summary: "Change a member", about: "What is absent stays. A member whose role or address changes has to sign in again; API keys made by one who is no owner or admin any more lose the scope admin. Only an owner or a key changes owners, and one owner stays.",
		example: example,
	}, func(ctx context.Context, c caller, in *memberChange) (result[memberView], error) {
		m, err := s.o.Access.UpdateMember(ctx, c.Principal, c.OrganizationID, in.ID, in.Body.change(c))
		return s.showMember(c, m, err)
	})
	register(s, operation{
		method: http.MethodDelete, path: "/management/members", id: "deleteMember", tag: "Members", who: managers, scope: scopeAdmin,
		summary: "Delete a member", about: "Their sessions and devices end at once, and the API keys they made lose the scope admin. Displays and webhooks they made stay: they are the organization's. You can't delete yourself, nor the last owner.", example: map[string]any{"id": exampleID},
	}, func(ctx context.Context, c caller, in *with[memberRef]) (message, error) {
		err := s.o.Access.DeleteMember(ctx, c.Principal, c.OrganizationID, in.Body.ID)
		if err == nil {
			s.directory.forget(c.OrganizationID)
		}
		return message{"The member is deleted."}, err
	})
}
