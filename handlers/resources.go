package handlers

import (
	"context"
	"net/http"
	"slices"

	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
)

// ResourceDetails are fields of a resource that are kept and given back as they
// came. One that is sent empty is emptied; one that is omitted or null is unchanged.
type ResourceDetails struct {
	Photo  models.Fields   `json:"photo,omitzero"`
	Photos []models.Fields `json:"photos,omitzero" maxItems:"50"`
	Meta   models.Fields   `json:"meta,omitzero" doc:"Whatever the organization keeps with it; staff only."`
}

// resourceBody creates or changes a resource. Omitted fields get their defaults or
// are unchanged.
type resourceBody struct {
	ID string `json:"id" maxLength:"64" doc:"Not used: the service chooses ids, and the path names the resource."`
	NamedBody
	Category        *string   `json:"category" maxLength:"200"`
	On              *bool     `json:"on" doc:"Whether bookings may reach it; true by default."`
	Activated       *bool     `json:"activated" doc:"true by default."`
	BookFromWebsite *bool     `json:"bookFromWebsite" doc:"true by default."`
	Types           *[]string `json:"types" maxItems:"200" doc:"The ids of the types it serves."`
	ProviderEmail   *string   `json:"providerEmail" maxLength:"254" doc:"The member who acts for the resource. A new member with the role provider is created. Empty removes the member. An API key needs the scope admin. Write-only."`
	ProviderPhone   *string   `json:"providerPhone" maxLength:"40" doc:"The same by phone number."`
	ResourceDetails
}

// apply changes a resource, except for its provider. A text without translations is
// in lang.
func (b *resourceBody) apply(r *models.Resource, lang string) error {
	b.rename(&r.Name, &r.NameTranslations, &r.Description, &r.DescriptionTranslations, lang)
	if r.Name == "" {
		return models.Invalid("name", "A resource needs a name.")
	}
	set(&r.Category, b.Category)
	set(&r.On, b.On)
	set(&r.Activated, b.Activated)
	set(&r.BookFromWebsite, b.BookFromWebsite)
	set(&r.TypeIDs, b.Types)
	var err error
	r.Details, err = merge(r.Details, b.ResourceDetails)
	return err
}

// resourceChange returns the change that the body describes. Naming a provider may
// create a member and gives access, so an API key needs the scope admin for it.
func (s *Server) resourceChange(c api.Caller, b *resourceBody) (catalog.ResourceChange, error) {
	names := b.ProviderEmail != nil || b.ProviderPhone != nil
	if names {
		if err := c.RequireScope(access.ScopeAdmin); err != nil {
			return nil, err
		}
	}
	return func(tx *store.Tx, r *models.Resource) error {
		if err := b.apply(r, c.Lang); err != nil {
			return err
		}
		if !names {
			return nil
		}
		r.ProviderID = nil
		phone, email := c.International(models.Text(b.ProviderPhone)), models.Text(b.ProviderEmail)
		if phone == "" && email == "" {
			return nil
		}
		id, err := s.api.Access.EnsureProvider(tx, c.OrganizationID, phone, email)
		r.ProviderID = &id
		return err
	}, nil
}

// PlaceView is a resource as customers see it.
type PlaceView struct {
	NamedView
	Category        string   `json:"category"`
	BookFromWebsite bool     `json:"bookFromWebsite"`
	Types           []string `json:"types" nullable:"false" doc:"The ids of the types it serves."`
	Paused          bool     `json:"paused" doc:"The resource calls no patients until its queue is resumed."`
	ResourceDetails
}

// resourceView is a resource as staff see it.
type resourceView struct {
	PlaceView
	On         bool          `json:"on"`
	Activated  bool          `json:"activated"`
	ProviderID string        `json:"providerId,omitempty"`
	CreatedAt  models.Moment `json:"createdAt"`
}

func viewPlace(r *models.Resource, lang string) (PlaceView, error) {
	v := PlaceView{
		NamedView: NamedView{r.ID, r.Name, r.NameTranslations, r.Description, r.DescriptionTranslations}.in(lang),
		Category:  r.Category, BookFromWebsite: r.BookFromWebsite, Types: r.TypeIDs, Paused: r.Paused,
	}
	if v.Types == nil {
		v.Types = []string{}
	}
	err := split(r.Details, &v.ResourceDetails)
	return v, err
}

func viewResource(r *models.Resource, lang string) (resourceView, error) {
	place, err := viewPlace(r, lang)
	return resourceView{place, r.On, r.Activated, models.Text(r.ProviderID), models.At(r.CreatedAt)}, err
}

func showResource(r *models.Resource, lang string) (api.Result[resourceView], error) {
	view, err := viewResource(r, lang)
	return api.Result[resourceView]{Result: view}, err
}

// pageOfResources answers all lists of resources.
func (s *Server) pageOfResources(ctx context.Context, c api.Caller, f catalog.ResourceFilter, p api.Paging) (api.List[resourceView], error) {
	page := p.Page()
	rows, err := s.api.Catalog.Resources(ctx, c.OrganizationID, f, page)
	if err != nil {
		return api.List[resourceView]{}, err
	}
	return api.TryListOf(rows, page.Limit, func(r *models.Resource) string { return r.ID }, func(r *models.Resource) (resourceView, error) {
		return viewResource(r, c.Lang)
	})
}

func (s *Server) resourceRoutes() {
	example := map[string]any{
		"name": "Dr. Sarah Johnson", "name_translations": map[string]any{"en": "Dr. Sarah Johnson", "ar": "د. سارة جونسون"},
		"category": "doctors", "types": []string{exampleID}, "on": true, "activated": true, "providerPhone": "+966500000002",
	}
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/resources", ID: "listResources", Tag: "Resources", Roles: api.Staff, Summary: "List resources",
	}, s.listResources)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/resources", ID: "createResource", Tag: "Resources", Roles: api.Managers,
		Summary: "Create a resource", About: "Bookings that wait and match it enter its queue.", Example: example,
	}, s.createResource)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/resources/mine", ID: "listMyResources", Tag: "Resources", Roles: api.Staff,
		Summary: "List the resources I act for", About: "Empty for API keys, which have no resources of their own.",
	}, s.listMyResources)
	const viewable = "Only active resources. A provider sees their own and those shared with them; other callers see all."
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/resources/confirmedViewable", ID: "listConfirmedViewable", Tag: "Resources", Roles: api.Staff,
		Summary: "List the resources whose confirmed bookings I may see", About: viewable,
	}, s.listConfirmedViewable)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/resources/requestsViewable", ID: "listRequestsViewable", Tag: "Resources", Roles: api.Staff,
		Summary: "List the resources whose requests I may see", About: viewable,
	}, s.listRequestsViewable)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/resources/{resourceId}", ID: "getResource", Tag: "Resources", Roles: api.Staff, Summary: "Get a resource",
	}, s.getResource)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/resources/{resourceId}", ID: "updateResource", Tag: "Resources", Roles: api.Managers,
		Summary: "Change a resource", About: "Omitted fields are unchanged. " + renaming + " Bookings that match it now enter its queue, those that no longer do leave it.",
		Example: map[string]any{"on": true, "types": []string{exampleID}},
	}, s.updateResource)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/resources/{resourceId}", ID: "deleteResource", Tag: "Resources", Roles: api.Managers,
		Summary: "Delete a resource", About: "Who waited for it alone keeps a place among those of the same type.",
	}, s.deleteResource)
}

func (s *Server) listResources(ctx context.Context, c api.Caller, in *api.Paging) (api.List[resourceView], error) {
	return s.pageOfResources(ctx, c, catalog.ResourceFilter{}, *in)
}

func (s *Server) createResource(ctx context.Context, c api.Caller, in *api.Body[resourceBody]) (api.Result[resourceView], error) {
	change, err := s.resourceChange(c, &in.Body)
	if err != nil {
		return api.Result[resourceView]{}, err
	}
	r, err := s.api.Catalog.CreateResource(ctx, c.OrganizationID, change)
	if err != nil {
		return api.Result[resourceView]{}, err
	}
	s.api.CatalogueChanged(ctx, c.OrganizationID)
	return showResource(r, c.Lang)
}

type myResourcesQuery struct {
	Limit int    `query:"limit" default:"100" minimum:"1" doc:"At most 100; more are not given."`
	Token string `query:"nextPageToken"`
}

func (s *Server) listMyResources(ctx context.Context, c api.Caller, in *myResourcesQuery) (api.List[resourceView], error) {
	if c.Kind != access.KindMember {
		return api.List[resourceView]{Result: []resourceView{}}, nil
	}
	return s.pageOfResources(ctx, c, catalog.ResourceFilter{ProviderID: c.SubjectID}, api.Paging{Limit: in.Limit, Token: in.Token})
}

func (s *Server) listConfirmedViewable(ctx context.Context, c api.Caller, in *myResourcesQuery) (api.List[resourceView], error) {
	return s.listViewable(ctx, c, in, c.Views.Confirmed)
}

func (s *Server) listRequestsViewable(ctx context.Context, c api.Caller, in *myResourcesQuery) (api.List[resourceView], error) {
	return s.listViewable(ctx, c, in, c.Views.Requests)
}

// listViewable lists the resources whose bookings the caller may see. For a provider,
// these are their own resources and those shared with them.
func (s *Server) listViewable(ctx context.Context, c api.Caller, in *myResourcesQuery, shared []string) (api.List[resourceView], error) {
	f := catalog.ResourceFilter{OnlyActive: true}
	if c.Role == models.RoleProvider {
		if f.IDs = slices.Concat(c.ResourceIDs, shared); len(f.IDs) == 0 {
			return api.List[resourceView]{Result: []resourceView{}}, nil
		}
	}
	return s.pageOfResources(ctx, c, f, api.Paging{Limit: in.Limit, Token: in.Token})
}

type byResource struct {
	ID string `path:"resourceId" maxLength:"64"`
}

func (s *Server) getResource(ctx context.Context, c api.Caller, in *byResource) (api.Result[resourceView], error) {
	r, err := s.api.Catalog.Resource(ctx, c.OrganizationID, in.ID)
	if err != nil {
		return api.Result[resourceView]{}, err
	}
	return showResource(r, c.Lang)
}

type resourceChange struct {
	ID   string `path:"resourceId" maxLength:"64"`
	Body resourceBody
}

func (s *Server) updateResource(ctx context.Context, c api.Caller, in *resourceChange) (api.Result[resourceView], error) {
	change, err := s.resourceChange(c, &in.Body)
	if err != nil {
		return api.Result[resourceView]{}, err
	}
	r, err := s.api.Catalog.UpdateResource(ctx, c.OrganizationID, in.ID, change)
	if err != nil {
		return api.Result[resourceView]{}, err
	}
	s.api.CatalogueChanged(ctx, c.OrganizationID)
	return showResource(r, c.Lang)
}

type resourceDeletion struct {
	ID     string `path:"resourceId" maxLength:"64"`
	Cancel bool   `query:"cancel" doc:"Cancel its future appointments, and tell their customers. Without it they are a reason to refuse (409)."`
}

func (s *Server) deleteResource(ctx context.Context, c api.Caller, in *resourceDeletion) (api.Message, error) {
	if err := s.api.Bookings.DeleteResource(ctx, c.Scope(), in.ID, in.Cancel); err != nil {
		return api.Message{}, err
	}
	s.api.CatalogueChanged(ctx, c.OrganizationID)
	return api.Message{Message: "The resource is deleted."}, nil
}
