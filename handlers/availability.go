package handlers

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"nowserving/booking/store"
	"nowserving/models"
)

// OfferQuery is the body of a public list.
type OfferQuery struct {
	Type    string      `json:"type" maxLength:"64" doc:"A booking type's id."`
	Filters *filterBody `json:"resourceFilters"`
	ShowAll bool        `json:"showAll" doc:"Also what is not offered on the website."`
	Limit   *int        `json:"limit" minimum:"1" doc:"10 by default, at most 100; more are not given."`
	Token   string      `json:"nextPageToken" maxLength:"200"`

	FiltersCustom models.Fields `json:"resourceFiltersCustomFields" doc:"Not used yet."`
}

func (q OfferQuery) page() store.Page {
	limit := defaultLimit
	set(&limit, q.Limit)
	return pageOf(limit, q.Token)
}

// offerInput asks for what can be joined.
type offerInput struct{ Body OfferQuery }

func (in *offerInput) pageToken() *string { return &in.Body.Token }

func (in *offerInput) query() any {
	q := in.Body
	q.Token, q.Limit = "", nil
	return q
}

type placeQuery struct {
	OfferQuery
	SortBy    string `json:"sortBy" enum:"createdAt,name" default:"createdAt"`
	Direction string `json:"sortByDirection" enum:"asc,desc" default:"asc"`
}

// placeInput asks for the resources that can be chosen.
type placeInput struct{ Body placeQuery }

func (in *placeInput) pageToken() *string { return &in.Body.Token }

func (in *placeInput) query() any {
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
		(f.Category == "" || f.Category == r.Category)
}

// pageAfter cuts a page, and one item more, out of a whole list: what comes after
// a place in its order.
func pageAfter[T any](all []*T, page store.Page, beyond func(item *T, place string) bool) []T {
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
	register(s, operation{
		method: http.MethodGet, path: "/availability/organization", id: "getOfferingOrganization", tag: "Availability", tenancy: fromHeader,
		summary: "Get who offers it", about: "What a page needs before anybody has signed in.",
	}, func(ctx context.Context, c caller, _ *struct{}) (result[doorView], error) {
		o, err := s.directory.of(ctx, c.OrganizationID)
		if err != nil {
			return result[doorView]{}, err
		}
		v := viewOrganization(&o.Organization)
		return result[doorView]{doorView{v.ID, v.ShortName, v.Name, v.Timezone, v.Country, v.GuestJoin}}, nil
	})
	register(s, operation{
		method: http.MethodPost, path: "/availability/types", id: "listOfferedTypes", tag: "Availability", tenancy: fromHeader,
		summary: "List what can be joined", about: "With pendingCount: how many wait for each just now.", example: map[string]any{"limit": 10},
	}, func(ctx context.Context, c caller, in *offerInput) (list[OfferView], error) {
		page := in.Body.page()
		o, err := s.directory.of(ctx, c.OrganizationID)
		if err != nil {
			return list[OfferView]{}, err
		}
		rows := pageAfter(o.offered(in.Body), page, func(t *models.BookingType, place string) bool { return t.ID > place })
		ids := make([]string, len(rows))
		for i := range rows {
			ids[i] = rows[i].ID
		}
		counts, err := s.o.Bookings.PendingCounts(ctx, c.OrganizationID, ids)
		if err != nil {
			return list[OfferView]{}, err
		}
		return listOf(rows, page.Limit, func(t *models.BookingType) string { return t.ID }, func(t *models.BookingType) OfferView {
			view, broken := viewOffer(t, c.Lang, counts[t.ID])
			if broken != nil {
				err = broken
			}
			return view
		}), err
	})

	register(s, operation{
		method: http.MethodPost, path: "/availability/resources", id: "listOfferedResources", tag: "Availability", tenancy: fromHeader,
		summary: "List resources", about: "Only those that are on and activated.", example: map[string]any{"type": exampleID, "limit": 10},
	}, func(ctx context.Context, c caller, in *placeInput) (list[PlaceView], error) {
		page := in.Body.page()
		o, err := s.directory.of(ctx, c.OrganizationID)
		if err != nil {
			return list[PlaceView]{}, err
		}
		rows := pageAfter(o.places(in.Body, c.Lang), page, in.Body.beyond(c.Lang))
		return listOf(rows, page.Limit, in.Body.place(c.Lang), func(r *models.Resource) PlaceView {
			view, broken := viewPlace(r, c.Lang)
			if broken != nil {
				err = broken
			}
			view.Meta = nil
			return view
		}), err
	})

	type byResource struct {
		ID string `path:"resourceId" maxLength:"64"`
	}
	register(s, operation{
		method: http.MethodGet, path: "/availability/resources/{resourceId}", id: "getOfferedResource", tag: "Availability", tenancy: fromHeader,
		summary: "Get a resource", about: "One that is on and activated.",
	}, func(ctx context.Context, c caller, in *byResource) (result[PlaceView], error) {
		r, err := s.o.Catalog.Resource(ctx, c.OrganizationID, in.ID)
		if err == nil && !r.Active() {
			err = models.Errorf(models.CodeResourceMissing, "There is no such resource in the organization.")
		}
		if err != nil {
			return result[PlaceView]{}, err
		}
		view, err := viewPlace(r, c.Lang)
		view.Meta = nil
		return result[PlaceView]{view}, err
	})
}

// offered lists the types a customer may choose. With filters, somebody who
// passes them has to serve the type.
func (o *organization) offered(q OfferQuery) []*models.BookingType {
	filtered := q.Filters != nil && (q.Filters.Resource != "" || len(q.Filters.Resources) > 0 || q.Filters.Category != "")
	served := map[string]bool{}
	for i := range o.resources {
		if q.allows(&o.resources[i]) {
			for _, id := range o.resources[i].TypeIDs {
				served[id] = true
			}
		}
	}
	var types []*models.BookingType
	for i := range o.types {
		t := &o.types[i]
		if t.On && (q.ShowAll || t.BookFromWebsite) && (q.Type == "" || q.Type == t.ID) && (!filtered || served[t.ID]) {
			types = append(types, t)
		}
	}
	return types
}

// place is where a resource stands in the order asked for.
func (q placeQuery) place(lang string) func(r *models.Resource) string {
	return func(r *models.Resource) string {
		if q.SortBy == "name" {
			return r.NameTranslations.In(lang, r.Name) + "\x00" + r.ID
		}
		return r.ID
	}
}

// beyond reports whether a resource comes after a place.
func (q placeQuery) beyond(lang string) func(r *models.Resource, place string) bool {
	place := q.place(lang)
	return func(r *models.Resource, after string) bool {
		if q.Direction == "desc" {
			return place(r) < after
		}
		return place(r) > after
	}
}

// places lists the resources a customer may choose.
func (o *organization) places(q placeQuery, lang string) []*models.Resource {
	var places []*models.Resource
	for i := range o.resources {
		if q.allows(&o.resources[i]) {
			places = append(places, &o.resources[i])
		}
	}
	place := q.place(lang)
	slices.SortFunc(places, func(a, b *models.Resource) int { return cmp.Compare(place(a), place(b)) })
	if q.Direction == "desc" {
		slices.Reverse(places)
	}
	return places
}
