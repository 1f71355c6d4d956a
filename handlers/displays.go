package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
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
	register(s, operation{
		method: http.MethodGet, path: "/management/displays", id: "listDisplays", tag: "Displays", who: staff | screen, summary: "List displays",
	}, func(ctx context.Context, c caller, in *paging) (list[DisplayView], error) {
		page := in.page()
		rows, err := s.o.Catalog.Displays(ctx, c.OrganizationID, page)
		return listOf(rows, page.Limit, func(d *models.Display) string { return d.ID }, viewDisplay), err
	})
	register(s, operation{
		method: http.MethodPost, path: "/management/displays", id: "createDisplay", tag: "Displays", who: managers, scope: scopeAdmin,
		summary: "Make a display", about: "Open the address in the answer on the screen; its token is shown once.",
		example: map[string]any{"name": "Waiting room"},
	}, func(ctx context.Context, c caller, in *with[displayBody]) (result[newDisplayView], error) {
		d := &models.Display{OrganizationID: c.OrganizationID, Name: in.Body.Name, ResourceIDs: in.Body.ResourceIDs}
		token := access.NewDisplayToken()
		if err := s.o.Catalog.CreateDisplay(ctx, d, token); err != nil {
			return result[newDisplayView]{}, err
		}
		return result[newDisplayView]{newDisplayView{viewDisplay(d), token, s.o.PublicURL + "/display/" + d.ID + "#" + token}}, nil
	})
	register(s, operation{
		method: http.MethodDelete, path: "/management/displays", id: "deleteDisplay", tag: "Displays", who: managers, scope: scopeAdmin,
		summary: "Delete a display", about: "Its token is worthless from then on.", example: map[string]any{"id": exampleID},
	}, func(ctx context.Context, c caller, in *with[displayRef]) (message, error) {
		return message{"The display is deleted."}, s.o.Catalog.DeleteDisplay(ctx, c.OrganizationID, in.Body.ID)
	})
}
