package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"nowserving/booking/catalog"
	"nowserving/handlers/api"
	"nowserving/models"
)

// websiteBody changes a website. Omitted and null fields are unchanged; empty ones are
// emptied.
type websiteBody struct {
	Name                         *string               `json:"name,omitempty" maxLength:"200"`
	Timezone                     *string               `json:"timezone,omitempty" maxLength:"100" example:"Asia/Riyadh" doc:"IANA name."`
	On                           *bool                 `json:"on,omitempty" doc:"Whether the page is open to visitors."`
	Logo                         models.Fields         `json:"logo,omitzero" doc:"Replaced as a whole, like each object. Logo, logoFavIcon, theme and map take at most 64 KiB together."`
	LogoFavIcon                  models.Fields         `json:"logoFavIcon,omitzero"`
	DisplayName                  *string               `json:"displayName,omitempty" maxLength:"200"`
	Description                  *string               `json:"description,omitempty" maxLength:"5000"`
	Terms                        *string               `json:"terms,omitempty" maxLength:"50000"`
	BookingSuccessMessage        *string               `json:"bookingSuccessMessage,omitempty" maxLength:"2000"`
	BookingPolicy                *models.BookingPolicy `json:"bookingPolicy,omitempty" enum:"specify,leastFirst,specifyAndLeastFirst" doc:"Which resource an appointment gets that names none. specify: the first free one. leastFirst and specifyAndLeastFirst, the default: of the free ones, the one with the fewest appointments on that day."`
	BookingTimePolicy            *models.TimePolicy    `json:"bookingTimePolicy,omitempty" enum:"displayAll,suggest,first" doc:"Which free times of a day are offered: all, suggestedTimes of them, or the first. Default displayAll."`
	SuggestedTimes               *int                  `json:"suggestedTimes,omitempty" minimum:"1" maximum:"50" doc:"Default 3."`
	BookingTimeSplitting         *models.TimeSplitting `json:"bookingTimeSplitting,omitempty" enum:"optimize,oclock,oclockAndHalf,20,15,10,fixed" doc:"At which times of an hour a visit may begin; optimize: at those that leave no gap; fixed: at fixedTimes. Default oclock."`
	FixedTimes                   []int                 `json:"fixedTimes,omitzero" maxItems:"200" minimum:"0" maximum:"1439" example:"[480,750]" doc:"Minutes from midnight."`
	BookingTimeSplittingOptimize *bool                 `json:"bookingTimeSplittingOptimize,omitempty" doc:"Adds the times that leave no gap."`
	BookingTimeShowMidnight      *bool                 `json:"bookingTimeShowMidnight,omitempty" doc:"Also the part of a slot that is after midnight. Default true."`
	SelectTypeFirst              *bool                 `json:"selectTypeFirst,omitempty" doc:"For the page: choose the booking type before the resource."`
	SelectResourceCategory       *bool                 `json:"selectResourceCategory,omitempty" doc:"For the page: choose among categories of resources."`
	HideResource                 *bool                 `json:"hideResource,omitempty" doc:"The lists of free times name no resources, so bookingPolicy chooses."`
	Theme                        models.Fields         `json:"theme,omitzero" example:"{\"primaryColor\":\"#0099ff\"}" doc:"For the page. Members whose name ends in color hold #rgb, #rrggbb, #rrggbbaa or the name of a colour of CSS."`
	CallSupport                  *string               `json:"callSupport,omitempty" maxLength:"40" example:"+966500000001"`
	WhatsApp                     *string               `json:"whatsapp,omitempty" maxLength:"40" example:"+966500000001"`
	EmailSupport                 *string               `json:"emailSupport,omitempty" maxLength:"254" example:"help@clinic.example"`
	Twitter                      *string               `json:"twitter,omitempty" maxLength:"200"`
	Instagram                    *string               `json:"instagram,omitempty" maxLength:"200"`
	Facebook                     *string               `json:"facebook,omitempty" maxLength:"200"`
	TikTok                       *string               `json:"tiktok,omitempty" maxLength:"200"`
	Snapchat                     *string               `json:"snapchat,omitempty" maxLength:"200"`
	Map                          models.Fields         `json:"map,omitzero"`
	Maroof                       *string               `json:"maroof,omitempty" maxLength:"100"`
	SaudiBusinessCenter          *string               `json:"saudiBusinessCenter,omitempty" maxLength:"100"`
}

// apply changes a website. The members of body and website have the same names.
func (b *websiteBody) apply(w *models.Website) error {
	for _, object := range []struct{ given, known *models.Fields }{
		{&b.Logo, &w.Logo}, {&b.LogoFavIcon, &w.LogoFavIcon}, {&b.Theme, &w.Theme}, {&b.Map, &w.Map},
	} {
		if *object.given != nil {
			*object.known = nil // or members that are no longer there would stay
		}
	}
	given, err := json.Marshal(b)
	if err == nil {
		err = json.Unmarshal(given, w)
	}
	if err != nil {
		return fmt.Errorf("change a website: %w", err)
	}
	return nil
}

// WebsiteView is a version of a website.
type WebsiteView struct {
	ID        string             `json:"id" doc:"The organization's."`
	Version   models.VersionName `json:"version" enum:"default,draft"`
	ShortName string             `json:"shortName" doc:"The organization's; works wherever the id does. Empty: there is none."`
	models.Website
}

func viewWebsite(o *models.Organization, version models.VersionName, w models.Website) api.Result[WebsiteView] {
	for _, object := range []*models.Fields{&w.Logo, &w.LogoFavIcon, &w.Theme, &w.Map} {
		if *object == nil {
			*object = models.Fields{}
		}
	}
	if w.FixedTimes == nil {
		w.FixedTimes = []int{}
	}
	return api.Result[WebsiteView]{Result: WebsiteView{o.ID, version, models.Text(o.ShortName), w}}
}

// viewOpenWebsite is viewWebsite for visitors: a website that is off shows its name only.
func viewOpenWebsite(o *models.Organization, version models.VersionName, w models.Website) api.Result[WebsiteView] {
	if w.On {
		return viewWebsite(o, version, w)
	}
	closed := viewWebsite(o, version, models.Website{Name: w.Name})
	closed.Result.ShortName = ""
	return closed
}

// ByVersion names a version of a website.
type ByVersion struct {
	Version models.VersionName `query:"version" enum:"default,draft" default:"default" doc:"A draft that was never stored is the default version."`
}

type websiteChange struct {
	ByVersion
	Body websiteBody
}

type byAddress struct {
	URL string `query:"url" required:"true" minLength:"1" maxLength:"2000" example:"https://clinic.example/book" doc:"The address of a page."`
}

func (s *Server) websiteRoutes() {
	const closed = "A website that is off answers its id, name and on: false; the other members are empty."
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/website", ID: "getWebsiteDetails", Tag: "Website", Roles: api.Staff, Summary: "Get the website",
		About: "One that was never stored has the organization's name and time zone and the defaults.",
	}, s.getWebsiteDetails)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/website", ID: "updateWebsite", Tag: "Website", Roles: api.Managers, Summary: "Change the website",
		About: "Omitted fields are unchanged, empty ones are emptied. Visitors and bookings follow the default version; the draft is prepared.",
		Example: map[string]any{
			"displayName": "Al Noor Clinic", "bookingPolicy": "leastFirst", "bookingTimeSplitting": "oclockAndHalf", "theme": map[string]any{"primaryColor": "#0099ff"},
		},
	}, s.updateWebsite)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/website/publish", ID: "publishWebsite", Tag: "Website", Roles: api.Managers,
		Summary: "Publish the draft of the website", About: "The draft is copied over the default version. The answer is the default version.",
	}, s.publishWebsite)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/website", ID: "getWebsite", Tag: "Website", Tenant: api.TenantFromHeader, Summary: "Get the website as visitors see it",
		About: closed,
	}, s.getWebsite)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/website/find", ID: "findWebsite", Tag: "Website", Tenant: api.NoTenant, Summary: "Find a website by its address",
		About: "The address is that of our own page for joining (/join/ and an organization's id or short name), or its origin is one of an organization's allowedOrigins; " +
			"of several organizations, the oldest. " + closed,
	}, s.findWebsite)
}

func (s *Server) getWebsiteDetails(ctx context.Context, c api.Caller, in *ByVersion) (api.Result[WebsiteView], error) {
	w, err := s.api.Catalog.Website(ctx, &c.Organization.Organization, in.Version)
	return viewWebsite(&c.Organization.Organization, in.Version, w), err
}

func (s *Server) updateWebsite(ctx context.Context, c api.Caller, in *websiteChange) (api.Result[WebsiteView], error) {
	w, err := s.api.Catalog.ChangeWebsite(ctx, c.OrganizationID, in.Version, in.Body.apply)
	return s.changedWebsite(ctx, c, in.Version, w, err)
}

func (s *Server) publishWebsite(ctx context.Context, c api.Caller, _ *struct{}) (api.Result[WebsiteView], error) {
	w, err := s.api.Catalog.PublishWebsite(ctx, c.OrganizationID)
	return s.changedWebsite(ctx, c, models.VersionDefault, w, err)
}

// changedWebsite answers with a version that was changed. Bookings follow the default
// version at once.
func (s *Server) changedWebsite(ctx context.Context, c api.Caller, version models.VersionName, w models.Website, err error) (api.Result[WebsiteView], error) {
	if err != nil {
		return api.Result[WebsiteView]{}, err
	}
	if version == models.VersionDefault {
		s.api.CatalogueChanged(ctx, c.OrganizationID)
	}
	return viewWebsite(&c.Organization.Organization, version, w), nil
}

func (s *Server) getWebsite(ctx context.Context, c api.Caller, in *ByVersion) (api.Result[WebsiteView], error) {
	o, err := s.api.Directory.Get(ctx, c.OrganizationID)
	if err != nil {
		return api.Result[WebsiteView]{}, err
	}
	w := o.Website
	if in.Version != models.VersionDefault {
		w, err = s.api.Catalog.Website(ctx, &o.Organization, in.Version)
	}
	return viewOpenWebsite(&o.Organization, in.Version, w), err
}

func (s *Server) findWebsite(ctx context.Context, _ api.Caller, in *byAddress) (api.Result[WebsiteView], error) {
	id, err := s.organizationAt(ctx, in.URL)
	if err != nil {
		return api.Result[WebsiteView]{}, err
	}
	o, err := s.api.Directory.Get(ctx, id)
	if err != nil {
		return api.Result[WebsiteView]{}, err
	}
	return viewOpenWebsite(&o.Organization, models.VersionDefault, o.Website), nil
}

// organizationAt returns the id of the organization with a website at an address.
func (s *Server) organizationAt(ctx context.Context, text string) (string, error) {
	address, err := url.Parse(strings.TrimSpace(text))
	if err == nil && (address.Scheme == "" || address.Hostname() == "") {
		err = errors.New("the address names no site")
	}
	if err != nil {
		return "", models.Invalid("url", "Give the whole address of a page, such as https://clinic.example/book.")
	}
	own, err := url.Parse(s.api.PublicURL)
	if err != nil {
		return "", fmt.Errorf("read the public URL: %w", err)
	}
	page, below := strings.CutPrefix(address.Path, own.Path+"/")
	if catalog.OriginOf(own) != catalog.OriginOf(address) || !below {
		return s.api.Catalog.IDAtOrigin(ctx, catalog.OriginOf(address))
	}
	name, joins := strings.CutPrefix(page, "join/")
	if name = strings.TrimSuffix(name, "/"); !joins || name == "" || strings.Contains(name, "/") {
		return "", models.Errorf(models.CodeOrgMissing, "This page is no organization's website.")
	}
	return s.api.Directory.ResolveID(ctx, name)
}
