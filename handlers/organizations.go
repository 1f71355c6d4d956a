package handlers

import (
	"context"
	"net/http"
	"time"

	"nowserving/models"
)

type organizationView struct {
	ID                   string         `json:"id"`
	Name                 string         `json:"name"`
	Timezone             string         `json:"timezone"`
	BusinessTypeID       string         `json:"businessTypeId"`
	BusinessCustomConfig map[string]any `json:"businessCustomConfig"`
	AllowedOrigins       []string       `json:"allowedOrigins" nullable:"false"`
	CreatedAt            time.Time      `json:"createdAt"`
}

func viewOrganization(o *models.Organization) organizationView {
	config := o.BusinessCustomConfig
	if config == nil {
		config = map[string]any{}
	}
	return organizationView{o.ID, o.Name, o.Timezone, o.BusinessTypeID, config, o.AllowedOrigins, o.CreatedAt.UTC()}
}

type organizationBody struct {
	Name                 string         `json:"name" required:"true" minLength:"1" maxLength:"200"`
	Timezone             string         `json:"timezone" required:"true" minLength:"1" maxLength:"100" example:"Asia/Riyadh" doc:"IANA name."`
	BusinessTypeID       string         `json:"businessTypeId" maxLength:"100"`
	BusinessCustomConfig map[string]any `json:"businessCustomConfig"`
	AllowedOrigins       []string       `json:"allowedOrigins" maxItems:"50" example:"[\"https://clinic.example\"]" doc:"Web origins whose pages may call the API for the organization and show its widgets."`
}

func (s *Server) organizationRoutes() {
	register(s, operation{
		method: http.MethodGet, path: "/management/organizations", id: "listOrganizations", tag: "Organizations", who: staff, tenancy: optional,
		summary: "List organizations", about: "All of them for an account key; everybody else sees their own.",
	}, func(ctx context.Context, c caller, in *paging) (list[organizationView], error) {
		page, err := in.page()
		if err != nil {
			return list[organizationView]{}, err
		}
		rows, err := s.o.Catalog.Organizations(ctx, c.Principal.OrganizationID, page)
		return listOf(rows, page.Limit, func(o *models.Organization) string { return o.ID }, viewOrganization), err
	})
	register(s, operation{
		method: http.MethodPost, path: "/management/organizations", id: "createOrganization", tag: "Organizations", who: accountKey, scope: scopeAdmin, tenancy: optional,
		summary: "Make an organization", example: map[string]any{"name": "Al Noor Clinic", "timezone": "Asia/Riyadh"},
	}, func(ctx context.Context, _ caller, in *with[organizationBody]) (result[organizationView], error) {
		o := &models.Organization{
			Name: in.Body.Name, Timezone: in.Body.Timezone, BusinessTypeID: in.Body.BusinessTypeID, BusinessCustomConfig: in.Body.BusinessCustomConfig,
			AllowedOrigins: in.Body.AllowedOrigins,
		}
		if err := s.o.Catalog.CreateOrganization(ctx, o); err != nil {
			return result[organizationView]{}, err
		}
		return result[organizationView]{viewOrganization(o)}, nil
	})
	type byOrganization struct {
		ID string `path:"id" maxLength:"64"`
	}
	register(s, operation{
		method: http.MethodGet, path: "/management/organizations/{id}", id: "getOrganization", tag: "Organizations", who: staff, tenancy: optional,
		summary: "Get an organization",
	}, func(ctx context.Context, c caller, in *byOrganization) (result[organizationView], error) {
		if own := c.Principal.OrganizationID; own != "" && own != in.ID {
			return result[organizationView]{}, models.Errorf(models.CodeOrgMissing, "There is no such organization, or it is not yours.")
		}
		o, err := s.o.Catalog.Organization(ctx, in.ID)
		if err != nil {
			return result[organizationView]{}, err
		}
		return result[organizationView]{viewOrganization(o)}, nil
	})
}
