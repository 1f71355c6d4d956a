package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
)

// memberView is a member as managers see it.
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
	return memberView{m.ID, m.Role, models.Text(m.Phone), models.Text(m.Email), m.FirstName, m.LastName, m.ResourceIDs, m.ViewConfirmed, m.ViewRequests, models.At(m.CreatedAt)}
}

// memberBody changes a member. Omitted fields are unchanged.
type memberBody struct {
	Phone         *string      `json:"phone" maxLength:"40" example:"+966500000002" doc:"They sign in with it, or with the e-mail address."`
	Email         *string      `json:"email" maxLength:"254"`
	Role          *models.Role `json:"role" enum:"owner,admin,provider,receptionist,screen"`
	FirstName     *string      `json:"firstName" maxLength:"200"`
	LastName      *string      `json:"lastName" maxLength:"200"`
	Resources     *[]string    `json:"resources" maxItems:"200" doc:"The ids of all resources the member acts for. A resource has one provider; naming it here removes it from the previous one."`
	ViewConfirmed *[]string    `json:"viewConfirmed" maxItems:"200" doc:"Whose bookings a provider may look at besides, without acting for them: those that these resources have taken."`
	ViewRequests  *[]string    `json:"viewRequests" maxItems:"200" doc:"Likewise: those that wait for these resources."`
}

func (b memberBody) change(c api.Caller) access.MemberChange {
	if b.Phone != nil {
		phone := c.International(*b.Phone)
		b.Phone = &phone
	}
	return access.MemberChange{
		Role: b.Role, Phone: b.Phone, Email: b.Email, FirstName: b.FirstName, LastName: b.LastName, ResourceIDs: b.Resources,
		ViewConfirmed: b.ViewConfirmed, ViewRequests: b.ViewRequests,
	}
}

func (s *Server) showMember(c api.Caller, m *models.Member, err error) (api.Result[memberView], error) {
	if err != nil {
		return api.Result[memberView]{}, err
	}
	s.api.Directory.Forget(c.OrganizationID)
	return api.Result[memberView]{Result: viewMember(m)}, nil
}

type memberRef struct {
	ID string `json:"id" required:"true" minLength:"1" maxLength:"64"`
}

func (s *Server) memberRoutes() {
	example := map[string]any{"phone": "+966500000002", "role": "provider", "firstName": "Sarah", "lastName": "Johnson", "resources": []string{exampleID}}
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/members", ID: "listMembers", Tag: "Members", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "List members", About: "The people who work for the organization and can sign in.",
	}, s.listMembers)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/members", ID: "createMember", Tag: "Members", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Create a member", About: "They sign in with a one-time code sent to their phone number or e-mail address. Only an owner or a key makes owners.",
		Example: example,
	}, s.createMember)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/members/{id}", ID: "updateMember", Tag: "Members", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Change a member", About: "Omitted fields are unchanged. A member whose role or address changes has to sign in again; API keys made by one who is no owner or admin any more lose the scope admin. Only an owner or a key changes owners, and one owner stays.",
		Example: example,
	}, s.updateMember)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/members", ID: "deleteMember", Tag: "Members", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Delete a member", About: "Their sessions and devices end at once, and the API keys they made lose the scope admin. Displays and webhooks they made stay: they are the organization's. You can't delete yourself, nor the last owner.", Example: map[string]any{"id": exampleID},
	}, s.deleteMember)
}

func (s *Server) listMembers(ctx context.Context, c api.Caller, in *api.Paging) (api.List[memberView], error) {
	page := in.Page()
	rows, err := s.api.Access.Members(ctx, c.OrganizationID, page)
	return api.ListOf(rows, page.Limit, func(m *models.Member) string { return m.ID }, viewMember), err
}

func (s *Server) createMember(ctx context.Context, c api.Caller, in *api.Body[memberBody]) (api.Result[memberView], error) {
	m, err := s.api.Access.CreateMember(ctx, c.Principal, c.OrganizationID, in.Body.change(c))
	return s.showMember(c, m, err)
}

type memberChange struct {
	ID   string `path:"id" maxLength:"64"`
	Body memberBody
}

func (s *Server) updateMember(ctx context.Context, c api.Caller, in *memberChange) (api.Result[memberView], error) {
	m, err := s.api.Access.UpdateMember(ctx, c.Principal, c.OrganizationID, in.ID, in.Body.change(c))
	return s.showMember(c, m, err)
}

func (s *Server) deleteMember(ctx context.Context, c api.Caller, in *api.Body[memberRef]) (api.Message, error) {
	err := s.api.Access.DeleteMember(ctx, c.Principal, c.OrganizationID, in.Body.ID)
	if err == nil {
		s.api.Directory.Forget(c.OrganizationID)
	}
	return api.Message{Message: "The member is deleted."}, err
}
