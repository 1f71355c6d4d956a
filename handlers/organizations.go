package handlers

import (
	"context"
	"net/http"

	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/handlers/api"
	"nowserving/models"
)

type organizationView struct {
	ID                   string           `json:"id"`
	Name                 string           `json:"name"`
	Timezone             string           `json:"timezone"`
	BusinessTypeID       string           `json:"businessTypeId"`
	BusinessCustomConfig models.Fields    `json:"businessCustomConfig"`
	AllowedOrigins       []string         `json:"allowedOrigins" nullable:"false"`
	ClinicAddresses      []string         `json:"clinicAddresses" nullable:"false"`
	OTPDailyLimit        *int             `json:"otpDailyLimit" doc:"Messages with one-time codes that go to its customers in a day of UTC; null: NOWSERVING_OTP_DAILY_LIMIT."`
	ShortName            string           `json:"shortName" example:"al-noor" doc:"Works wherever the id does; empty: there is none."`
	Country              string           `json:"country" example:"SA" doc:"Whose phone numbers need no country code (ISO 3166-1); by default that of the time zone."`
	GuestJoin            models.GuestJoin `json:"guestJoin" enum:"off,turnstile,onSite" doc:"Whether people join a queue without signing in: not at all, with a proof of Cloudflare Turnstile, or with the code that the clinic shows."`
	OnSiteCode           string           `json:"onSiteCode,omitempty" example:"K7MX4Q" doc:"The code that guests at the clinic type. Shown to callers who may change it."`
	CreatedAt            models.Moment    `json:"createdAt"`
	IsDeleted            bool             `json:"isDeleted" doc:"True only in the answer to the deletion; a deleted organization can't be read."`
}

func viewOrganization(o *models.Organization) organizationView {
	config := o.BusinessCustomConfig
	if config == nil {
		config = models.Fields{}
	}
	return organizationView{
		ID: o.ID, Name: o.Name, Timezone: o.Timezone, BusinessTypeID: o.BusinessTypeID, BusinessCustomConfig: config, AllowedOrigins: o.AllowedOrigins, ClinicAddresses: o.ClinicAddresses,
		OTPDailyLimit: o.OTPDailyLimit, ShortName: models.Text(o.ShortName), Country: catalog.CountryOf(o), GuestJoin: o.GuestJoin, CreatedAt: models.At(o.CreatedAt), IsDeleted: o.DeletedAt != nil,
	}
}

func (s *Server) showOrganization(c api.Caller) func(o *models.Organization, err error) (api.Result[organizationView], error) {
	return func(o *models.Organization, err error) (api.Result[organizationView], error) {
		if err != nil {
			return api.Result[organizationView]{}, err
		}
		view := viewOrganization(o)
		if api.Managers&api.RoleOf(c.Principal) != 0 && c.RequireScope(access.ScopeAdmin) == nil && o.OnSiteCodeSealed != "" {
			if view.OnSiteCode, err = s.onSite.Open(o.OnSiteCodeSealed); err != nil {
				return api.Result[organizationView]{}, err
			}
		}
		return api.Result[organizationView]{Result: view}, nil
	}
}

// AccessBody is how people find an organization and whether guests may join.
type AccessBody struct {
	ShortName  *string           `json:"shortName" maxLength:"40" example:"al-noor" doc:"Works wherever the id does: 3 to 40 lower-case letters and digits, with single hyphens between. Empty: none."`
	Country    *string           `json:"country" maxLength:"2" example:"SA" doc:"Whose phone numbers need no country code (ISO 3166-1). Empty: that of the time zone."`
	GuestJoin  *models.GuestJoin `json:"guestJoin" enum:"off,turnstile,onSite" doc:"Whether people join a queue without signing in. Default off."`
	OnSiteCode *string           `json:"onSiteCode" maxLength:"40" example:"K7MX4Q" doc:"The code that guests at the clinic type: 4 to 20 letters and digits. If it is empty, or omitted where there is none yet, a random one is made."`
}

// accessChange returns the change that the body describes. hasCode reports whether the
// organization has an on-site code.
func (s *Server) accessChange(b AccessBody, hasCode bool) (catalog.OrganizationChange, error) {
	change := catalog.OrganizationChange{ShortName: b.ShortName, Country: b.Country, GuestJoin: b.GuestJoin}
	if b.GuestJoin != nil && *b.GuestJoin == models.GuestsTurnstile && !s.api.Access.AsksTurnstile() {
		return change, models.Invalid("guestJoin", "The server is not set up with Turnstile (NOWSERVING_TURNSTILE_SECRET).")
	}
	var code string
	switch {
	case b.OnSiteCode != nil && *b.OnSiteCode != "":
		if code = access.NormalOnSiteCode(*b.OnSiteCode); code == "" {
			return change, models.Invalid("onSiteCode", "An on-site code has 4 to 20 letters and digits.")
		}
	case b.OnSiteCode != nil, b.GuestJoin != nil && *b.GuestJoin == models.GuestsOnSite && !hasCode:
		code = access.NewOnSiteCode()
	default:
		return change, nil
	}
	sealed := s.onSite.Seal(code)
	change.OnSiteCodeSealed = &sealed
	return change, nil
}

type organizationBody struct {
	Name                 string        `json:"name" required:"true" minLength:"1" maxLength:"200"`
	Timezone             string        `json:"timezone" required:"true" minLength:"1" maxLength:"100" example:"Asia/Riyadh" doc:"IANA name."`
	BusinessTypeID       string        `json:"businessTypeId" maxLength:"100"`
	BusinessCustomConfig models.Fields `json:"businessCustomConfig"`
	AllowedOrigins       []string      `json:"allowedOrigins" maxItems:"50" example:"[\"https://clinic.example\"]" doc:"Origins whose pages may call the API for the organization and show its widgets. Hybrid apps have one too, such as capacitor://localhost."`
	ClinicAddresses      []string      `json:"clinicAddresses" maxItems:"20" example:"[\"203.0.113.5\",\"2001:db8:1::/48\"]" doc:"Public addresses that the clinic's patients and devices share, such as that of its Wi-Fi: IP addresses, or networks of at least 24 bits in IPv4 and 48 in IPv6. Requests without a credential that come from there have ten times the budget."`
	OTPDailyLimit        *int          `json:"otpDailyLimit" minimum:"1" maximum:"1000000" doc:"Messages with one-time codes a day, for its customers. Default NOWSERVING_OTP_DAILY_LIMIT."`
	AccessBody
}

// organizationChangeBody changes an organization. Omitted fields are unchanged.
type organizationChangeBody struct {
	Name                 *string       `json:"name" minLength:"1" maxLength:"200"`
	Timezone             *string       `json:"timezone" minLength:"1" maxLength:"100" example:"Asia/Riyadh" doc:"IANA name."`
	BusinessTypeID       *string       `json:"businessTypeId" maxLength:"100"`
	BusinessCustomConfig models.Fields `json:"businessCustomConfig" doc:"Replaced as a whole."`
	AllowedOrigins       *[]string     `json:"allowedOrigins" maxItems:"50" doc:"Replaced as a whole."`
	ClinicAddresses      *[]string     `json:"clinicAddresses" maxItems:"20" doc:"Replaced as a whole."`
	OTPDailyLimit        *int          `json:"otpDailyLimit" minimum:"1" maximum:"1000000" doc:"Messages with one-time codes a day, for its customers. Only account keys set it."`
	AccessBody
}

func (s *Server) organizationRoutes() {
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/organizations", ID: "listOrganizations", Tag: "Organizations", Roles: api.Staff, Tenant: api.TenantOptional,
		Summary: "List organizations", About: "All of them for an account key; other callers see their own.",
	}, s.listOrganizations)
	api.Register(s.api, api.Operation{
		Method: http.MethodPost, Path: "/management/organizations", ID: "createOrganization", Tag: "Organizations", Roles: api.AccountKey, Scope: access.ScopeAdmin, Tenant: api.TenantOptional,
		Summary: "Create an organization", Example: models.Fields{"name": "Al Noor Clinic", "timezone": "Asia/Riyadh"},
	}, s.createOrganization)
	api.Register(s.api, api.Operation{
		Method: http.MethodGet, Path: "/management/organizations/{id}", ID: "getOrganization", Tag: "Organizations", Roles: api.Staff, Tenant: api.TenantOptional,
		Summary: "Get an organization",
	}, s.getOrganization)
	api.Register(s.api, api.Operation{
		Method: http.MethodPut, Path: "/management/organizations/{id}", ID: "updateOrganization", Tag: "Organizations", Roles: api.Managers, Scope: access.ScopeAdmin, Tenant: api.TenantOptional,
		Summary: "Change an organization", About: "Omitted fields are unchanged. Tickets are drawn for the local day of the new time zone from then on.",
		Example: models.Fields{"name": "Al Noor Clinic", "timezone": "Asia/Riyadh", "allowedOrigins": []string{"https://clinic.example"}},
	}, s.updateOrganization)
	api.Register(s.api, api.Operation{
		Method: http.MethodDelete, Path: "/management/organizations/{id}", ID: "deleteOrganization", Tag: "Organizations", Roles: api.AccountKey | api.Owner, Scope: access.ScopeAdmin, Tenant: api.TenantOptional,
		Summary: "Delete an organization",
		About: "It is hidden everywhere, its credentials are refused, its live connections closed, and nothing is sent for it any more. What it had stays in the database, " +
			"unless hardDelete is asked for, which only a service in development carries out.",
	}, s.deleteOrganization)
}

func (s *Server) listOrganizations(ctx context.Context, c api.Caller, in *api.Paging) (api.List[organizationView], error) {
	page := in.Page()
	rows, err := s.api.Catalog.Organizations(ctx, c.Principal.OrganizationID, page)
	return api.ListOf(rows, page.Limit, func(o *models.Organization) string { return o.ID }, viewOrganization), err
}

func (s *Server) createOrganization(ctx context.Context, c api.Caller, in *api.Body[organizationBody]) (api.Result[organizationView], error) {
	o := &models.Organization{
		Name: in.Body.Name, Timezone: in.Body.Timezone, BusinessTypeID: in.Body.BusinessTypeID, BusinessCustomConfig: in.Body.BusinessCustomConfig,
		AllowedOrigins: in.Body.AllowedOrigins, ClinicAddresses: in.Body.ClinicAddresses, OTPDailyLimit: in.Body.OTPDailyLimit,
	}
	if err := checkFields("businessCustomConfig", in.Body.BusinessCustomConfig); err != nil {
		return api.Result[organizationView]{}, err
	}
	change, err := s.accessChange(in.Body.AccessBody, false)
	if err != nil {
		return api.Result[organizationView]{}, err
	}
	change.Apply(o)
	return s.showOrganization(c)(o, s.api.Catalog.CreateOrganization(ctx, o))
}

type byOrganization struct {
	ID string `path:"id" maxLength:"64"`
}

func (s *Server) getOrganization(ctx context.Context, c api.Caller, in *byOrganization) (api.Result[organizationView], error) {
	if err := s.resolveOrganization(ctx, c, &in.ID); err != nil {
		return api.Result[organizationView]{}, err
	}
	return s.showOrganization(c)(s.api.Catalog.Organization(ctx, in.ID))
}

type organizationChange struct {
	ID   string `path:"id" maxLength:"64"`
	Body organizationChangeBody
}

func (s *Server) updateOrganization(ctx context.Context, c api.Caller, in *organizationChange) (api.Result[organizationView], error) {
	if err := s.resolveOrganization(ctx, c, &in.ID); err != nil {
		return api.Result[organizationView]{}, err
	}
	if err := checkFields("businessCustomConfig", in.Body.BusinessCustomConfig); err != nil {
		return api.Result[organizationView]{}, err
	}
	if in.Body.OTPDailyLimit != nil && c.Kind != access.KindAccount {
		return api.Result[organizationView]{}, models.Errorf(models.CodeForbidden, "Messages cost the operator: only an account key sets otpDailyLimit.")
	}
	before, err := s.api.Catalog.Organization(ctx, in.ID)
	if err != nil {
		return api.Result[organizationView]{}, err
	}
	change, err := s.accessChange(in.Body.AccessBody, before.OnSiteCodeSealed != "")
	if err != nil {
		return api.Result[organizationView]{}, err
	}
	change.Name, change.Timezone, change.BusinessTypeID = in.Body.Name, in.Body.Timezone, in.Body.BusinessTypeID
	change.BusinessCustomConfig, change.AllowedOrigins = in.Body.BusinessCustomConfig, in.Body.AllowedOrigins
	change.ClinicAddresses, change.OTPDailyLimit = in.Body.ClinicAddresses, in.Body.OTPDailyLimit
	o, err := s.api.Catalog.UpdateOrganization(ctx, in.ID, change)
	s.api.Directory.Forget(in.ID)
	return s.showOrganization(c)(o, err)
}

type organizationDeletion struct {
	ID   string `path:"id" maxLength:"64"`
	Hard bool   `query:"hardDelete" doc:"Delete everything of it for good; in development only."`
}

func (s *Server) deleteOrganization(ctx context.Context, c api.Caller, in *organizationDeletion) (api.Result[organizationView], error) {
	if err := s.resolveOrganization(ctx, c, &in.ID); err != nil {
		return api.Result[organizationView]{}, err
	}
	defer s.api.Directory.Forget(in.ID)
	if !in.Hard {
		return s.showOrganization(c)(s.api.Catalog.DeleteOrganization(ctx, in.ID))
	}
	if !s.opts.Development {
		return api.Result[organizationView]{}, models.Errorf(models.CodeHardDelete, "Organizations are deleted for good in development only.")
	}
	o, err := s.api.Catalog.DropOrganization(ctx, in.ID)
	if err != nil {
		return api.Result[organizationView]{}, err
	}
	s.purgeFiles(ctx)
	if err := s.opts.Mirrors.Drop(ctx, in.ID); err != nil {
		s.api.Log.Warn("the queue index of a deleted organization stays in Redis", "organization", in.ID, "error", err)
	}
	return s.showOrganization(c)(o, nil)
}

// resolveOrganization replaces a short name by its id. A credential of an
// organization gets no other organization.
func (s *Server) resolveOrganization(ctx context.Context, c api.Caller, id *string) (err error) {
	if *id, err = s.api.Directory.ResolveID(ctx, *id); err != nil {
		return err
	}
	if own := c.Principal.OrganizationID; own != "" && own != *id {
		return models.Errorf(models.CodeOrgMissing, "There is no such organization, or it is not yours.")
	}
	return nil
}
