package handlers

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"nowserving/handlers/api"
	"nowserving/models"
)

// maxInCategory bounds the resources that are answered for one category.
const maxInCategory = 100

// categoryView is a category of resources.
type categoryView struct {
	ID        string      `json:"id" doc:"The category as resourceFilters name it."`
	Name      string      `json:"name"`
	Resources []PlaceView `json:"resources" nullable:"false" doc:"At most 100."`
}

// category is a category with its resources.
type category struct {
	name      string
	resources []*models.Resource
}

func (s *Server) categoryRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/availability/resourceCategories", ID: "listOfferedCategories", Tag: "Availability", Tenant: api.TenantFromHeader,
		Summary: "List the categories of resources",
		About:   "With the resources of each that are on and activated, at most 100; POST /availability/resources lists the rest. In the order of names. Resources without a category are left out.",
		Example: map[string]any{"limit": 10},
	}, s.listOfferedCategories)
}

func (s *Server) listOfferedCategories(ctx context.Context, c api.Caller, in *offerInput) (api.List[categoryView], error) {
	page := in.Body.page()
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return api.List[categoryView]{}, err
	}
	rows := pageAfter(in.Body.categories(o), page, func(k *category, position string) bool { return k.name > position })
	return api.TryListOf(rows, page.Limit, func(k *category) string { return k.name }, func(k *category) (categoryView, error) {
		view := categoryView{ID: k.name, Name: k.name, Resources: []PlaceView{}}
		for _, r := range k.resources[:min(len(k.resources), maxInCategory)] {
			place, err := viewPlace(r, c.Lang)
			if err != nil {
				return view, err
			}
			place.Meta = nil
			view.Resources = append(view.Resources, place)
		}
		return view, nil
	})
}

// categories groups the resources that a customer may choose by their category, in the
// order of names.
func (q OfferQuery) categories(o *api.Organization) []*category {
	byName := map[string]*category{}
	var all []*category
	for _, r := range (placeQuery{OfferQuery: q}).resources(o, "") {
		if r.Category == "" {
			continue
		}
		k := byName[r.Category]
		if k == nil {
			k = &category{name: r.Category}
			byName[r.Category], all = k, append(all, k)
		}
		k.resources = append(k.resources, r)
	}
	slices.SortFunc(all, func(a, b *category) int { return cmp.Compare(a.name, b.name) })
	return all
}
