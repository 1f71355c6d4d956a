package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/handlers/api"
	"nowserving/models"
)

// DisplayView is a display as staff see it.
type DisplayView struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	ResourceIDs []string      `json:"resourceIds" nullable:"false" doc:"What it shows; empty means every resource."`
	CreatedAt   models.Moment `json:"createdAt"`
}

// newDisplayView is shown once, when a display is made.
type newDisplayView struct {
	DisplayView
	Token string `json:"token" doc:"Shown once."`
	URL   string `json:"url" doc:"The page to open on the screen."`
}

func viewDisplay(d *models.Display) DisplayView {
	ids := d.ResourceIDs
	if ids == nil {
		ids = []string{}
	}
	return DisplayView{d.ID, d.Name, ids, models.At(d.CreatedAt)}
}

type displayBody struct {
	Name        string   `json:"name" required:"true" minLength:"1" maxLength:"200" example:"Waiting room"`
	ResourceIDs []string `json:"resourceIds" maxItems:"200" doc:"What it shows; every resource by default."`
}

type displayRef struct {
	ID string `json:"id" required:"true" minLength:"1" maxLength:"64"`
}

func (s *Server) displayRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/displays", ID: "listDisplays", Tag: "Displays", Roles: api.Staff | api.Screen, Summary: "List displays",
	}, s.listDisplays)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/displays", ID: "createDisplay", Tag: "Displays", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Create a display", About: "Open the address in the answer on the screen; its token is shown once.",
		Example: map[string]any{"name": "Waiting room"},
	}, s.createDisplay)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/displays", ID: "deleteDisplay", Tag: "Displays", Roles: api.Managers, Scope: access.ScopeAdmin,
		Summary: "Delete a display", About: "Its token is worthless from then on.", Example: map[string]any{"id": exampleID},
	}, s.deleteDisplay)
}

func (s *Server) listDisplays(ctx context.Context, c api.Caller, in *api.Paging) (api.List[DisplayView], error) {
	page := in.Page()
	rows, err := s.api.Catalog.Displays(ctx, c.OrganizationID, page)
	return api.ListOf(rows, page.Limit, func(d *models.Display) string { return d.ID }, viewDisplay), err
}

func (s *Server) createDisplay(ctx context.Context, c api.Caller, in *api.Body[displayBody]) (api.Result[newDisplayView], error) {
	d := &models.Display{OrganizationID: c.OrganizationID, Name: in.Body.Name, ResourceIDs: in.Body.ResourceIDs}
	token := access.NewDisplayToken()
	if err := s.api.Catalog.CreateDisplay(ctx, d, token); err != nil {
		return api.Result[newDisplayView]{}, err
	}
	return api.Result[newDisplayView]{Result: newDisplayView{viewDisplay(d), token, s.api.PublicURL + "/display/" + d.ID + "#" + token}}, nil
}

func (s *Server) deleteDisplay(ctx context.Context, c api.Caller, in *api.Body[displayRef]) (api.Message, error) {
	return api.Message{Message: "The display is deleted."}, s.api.Catalog.DeleteDisplay(ctx, c.OrganizationID, in.Body.ID)
}
