package handlers

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"nowserving/booking"
	customfields "nowserving/booking/fields"
	"nowserving/booking/store"
	"nowserving/handlers/api"
	"nowserving/models"
)

// OfferQuery is the body of a public list.
type OfferQuery struct {
	Type    string      `json:"type" maxLength:"64" doc:"A booking type's id."`
	Filters *filterBody `json:"resourceFilters"`
	ShowAll bool        `json:"showAll" doc:"Also what is not offered on the website."`
	Limit   *int        `json:"limit" minimum:"1" doc:"10 by default, at most 100; more are not given."`
	Token   string      `json:"nextPageToken" maxLength:"2000"`

	FiltersCustom models.Fields `json:"resourceFiltersCustomFields" doc:"Values of the fields of GET /customFields/resourceFilters, by id. Only resources whose meta has one of the values are meant."`

	narrow customfields.Narrow // that FiltersCustom stand for
}

func (q OfferQuery) page() store.Page {
	limit := api.DefaultPage
	set(&limit, q.Limit)
	return api.PageOf(limit, q.Token)
}

// offerInput is the input of the list of booking types.
type offerInput struct{ Body OfferQuery }

// PageToken implements api.PagedBody.
func (in *offerInput) PageToken() *string { return &in.Body.Token }

// Query implements api.PagedBody.
func (in *offerInput) Query() any {
	q := in.Body
	q.Token, q.Limit = "", nil
	return q
}

type placeQuery struct {
	OfferQuery
	SortBy    string `json:"sortBy" enum:"createdAt,name" default:"createdAt"`
	Direction string `json:"sortByDirection" enum:"asc,desc" default:"asc"`
}

// placeInput is the input of the list of resources.
type placeInput struct{ Body placeQuery }

// PageToken implements api.PagedBody.
func (in *placeInput) PageToken() *string { return &in.Body.Token }

// Query implements api.PagedBody.
func (in *placeInput) Query() any {
	q := in.Body
	q.Token, q.Limit = "", nil
	return q
}

// allows reports whether a resource passes the filters.
func (q OfferQuery) allows(r *models.Resource) bool {
	f := q.Filters.filters()
	return r.Active() && (q.ShowAll || r.BookFromWebsite) &&
		(q.Type == "" || slices.Contains(r.TypeIDs, q.Type)) &&
		(len(f.Resources) == 0 || slices.Contains(f.Resources, r.ID)) &&
		(f.Category == "" || f.Category == r.Category) && booking.Leaves(q.narrow, r)
}

// readFilters checks the values of custom fields that filter resources.
func (q *OfferQuery) readFilters(o *api.Organization) (err error) {
	q.narrow, err = booking.FilterOf(o.BookingFields.Fields, q.FiltersCustom, q.Type)
	return err
}

// pageAfter returns a page of a whole list, with one more item if there is one. The
// page begins after a position in the order of the list.
func pageAfter[T any](all []*T, page store.Page, beyond func(item *T, position string) bool) []T {
	if page.After != "" {
		i := slices.IndexFunc(all, func(item *T) bool { return beyond(item, page.After) })
		if i < 0 {
			i = len(all)
		}
		all = all[i:]
	}
	out := make([]T, 0, min(len(all), page.Limit+1))
	for _, item := range all[:min(len(all), page.Limit+1)] {
		out = append(out, *item)
	}
	return out
}

// doorView is the public part of an organization.
type doorView struct {
	ID        string           `json:"id"`
	ShortName string           `json:"shortName" doc:"Works wherever the id does; empty: there is none."`
	Name      string           `json:"name"`
	Timezone  string           `json:"timezone"`
	Country   string           `json:"country" doc:"Whose phone numbers need no country code."`
	GuestJoin models.GuestJoin `json:"guestJoin" enum:"off,turnstile,onSite" doc:"Whether people join a queue without signing in: not at all, with a proof of Cloudflare Turnstile, or with the code that the clinic shows."`
}

func (s *Server) availabilityRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/availability/organization", ID: "getOfferingOrganization", Tag: "Availability", Tenant: api.TenantFromHeader,
		Summary: "Get the organization", About: "What a page needs before sign-in.",
	}, s.getOfferingOrganization)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/availability/types", ID: "listOfferedTypes", Tag: "Availability", Tenant: api.TenantFromHeader,
		Summary: "List booking types that customers can join", About: "With pendingCount: how many wait for each just now.", Example: map[string]any{"limit": 10},
	}, s.listOfferedTypes)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/availability/resources", ID: "listOfferedResources", Tag: "Availability", Tenant: api.TenantFromHeader,
		Summary: "List resources", About: "Only those that are on and activated.", Example: map[string]any{"type": exampleID, "limit": 10},
	}, s.listOfferedResources)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/availability/resources/{resourceId}", ID: "getOfferedResource", Tag: "Availability", Tenant: api.TenantFromHeader,
		Summary: "Get a resource", About: "One that is on and activated.",
	}, s.getOfferedResource)
}

func (s *Server) getOfferingOrganization(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[doorView], error) {
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return api.Result[doorView]{}, err
	}
	v := viewOrganization(&o.Organization)
	return api.Result[doorView]{Result: doorView{v.ID, v.ShortName, v.Name, v.Timezone, v.Country, v.GuestJoin}}, nil
}

func (s *Server) listOfferedTypes(ctx context.Context, c api.Caller, in *offerInput) (api.List[OfferView], error) {
	page := in.Body.page()
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err == nil {
		err = in.Body.readFilters(o)
	}
	if err != nil {
		return api.List[OfferView]{}, err
	}
	rows := pageAfter(in.Body.types(o), page, func(t *models.BookingType, position string) bool { return t.ID > position })
	ids := make([]string, len(rows))
	for i := range rows {
		ids[i] = rows[i].ID
	}
	counts, err := s.api.Bookings.PendingCounts(ctx, c.OrganizationID, ids)
	if err != nil {
		return api.List[OfferView]{}, err
	}
	return api.TryListOf(rows, page.Limit, func(t *models.BookingType) string { return t.ID }, func(t *models.BookingType) (OfferView, error) {
		return viewOffer(t, c.Lang, counts[t.ID])
	})
}

func (s *Server) listOfferedResources(ctx context.Context, c api.Caller, in *placeInput) (api.List[PlaceView], error) {
	page := in.Body.page()
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err == nil {
		err = in.Body.readFilters(o)
	}
	if err != nil {
		return api.List[PlaceView]{}, err
	}
	order := in.Body.language(c.Lang)
	rows := pageAfter(in.Body.resources(o, order), page, in.Body.beyond(order))
	return api.TryListOf(rows, page.Limit, in.Body.position(order), func(r *models.Resource) (PlaceView, error) {
		view, err := viewPlace(r, c.Lang)
		view.Meta = nil
		return view, err
	})
}

func (s *Server) getOfferedResource(ctx context.Context, c api.Caller, in *byResource) (api.Result[PlaceView], error) {
	r, err := s.api.Catalog.Resource(ctx, c.OrganizationID, in.ID)
	if err == nil && !r.Active() {
		err = models.Errorf(models.CodeResourceMissing, "There is no such resource in the organization.")
	}
	if err != nil {
		return api.Result[PlaceView]{}, err
	}
	view, err := viewPlace(r, c.Lang)
	view.Meta = nil
	return api.Result[PlaceView]{Result: view}, err
}

// types lists the types of an organization that a customer may choose. With
// filters, a resource that passes them has to serve the type.
func (q OfferQuery) types(o *api.Organization) []*models.BookingType {
	filtered := q.Filters != nil && (q.Filters.Resource != "" || len(q.Filters.Resources) > 0 || q.Filters.Category != "") || !q.narrow.All()
	served := map[string]bool{}
	for i := range o.Resources {
		if q.allows(&o.Resources[i]) {
			for _, id := range o.Resources[i].TypeIDs {
				served[id] = true
			}
		}
	}
	var types []*models.BookingType
	for i := range o.Types {
		t := &o.Types[i]
		if t.On && (q.ShowAll || t.BookFromWebsite) && (q.Type == "" || q.Type == t.ID) && (!filtered || served[t.ID]) {
			types = append(types, t)
		}
	}
	return types
}

// position returns the position of a resource in the order of the list. The order by
// name is that of a language, which the position begins with.
func (q placeQuery) position(lang string) func(r *models.Resource) string {
	return func(r *models.Resource) string {
		if q.SortBy == "name" {
			return lang + "\x00" + r.NameTranslations.In(lang, r.Name) + "\x00" + r.ID
		}
		return r.ID
	}
}

// language returns the language that the list is ordered in: that of the first page,
// which later pages continue, or lang for the first page.
func (q placeQuery) language(lang string) string {
	if first, _, found := strings.Cut(q.Token, "\x00"); found {
		return first
	}
	return lang
}

// beyond reports whether a resource comes after a position.
func (q placeQuery) beyond(lang string) func(r *models.Resource, after string) bool {
	position := q.position(lang)
	return func(r *models.Resource, after string) bool {
		if q.Direction == "desc" {
			return position(r) < after
		}
		return position(r) > after
	}
}

// resources lists the resources of an organization that a customer may choose.
func (q placeQuery) resources(o *api.Organization, lang string) []*models.Resource {
	var resources []*models.Resource
	for i := range o.Resources {
		if q.allows(&o.Resources[i]) {
			resources = append(resources, &o.Resources[i])
		}
	}
	position := q.position(lang)
	slices.SortFunc(resources, func(a, b *models.Resource) int { return cmp.Compare(position(a), position(b)) })
	if q.Direction == "desc" {
		slices.Reverse(resources)
	}
	return resources
}
