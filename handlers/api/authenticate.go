package api

import (
	"cmp"
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"nowserving/booking/access"
	"nowserving/booking/store"
	"nowserving/models"
)

// admit calls the operation if the caller's credential has one of its roles and acts
// for the organization of the request.
func (a *API) admit(op Operation) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		ctx.SetHeader("Cache-Control", "no-store")
		c, err := a.CallerFor(ctx, op)
		defer a.countUse(humagin.Unwrap(ctx), c.Principal)
		a.share(humagin.Unwrap(ctx), c.OrganizationID, err)
		if err != nil {
			a.WriteError(humagin.Unwrap(ctx), err)
			return
		}
		c.pageBinding = bindingOf(ctx, op, c.OrganizationID)
		if token := ctx.Query(pageTokenName); token != "" {
			place, err := a.pages.open(token, c.pageBinding)
			if err != nil {
				a.WriteError(humagin.Unwrap(ctx), err)
				return
			}
			ctx = opened{ctx, place}
		}
		ctx = huma.WithValue(ctx, keyCaller, c)
		request := store.ForOrganization(ctx.Context(), c.OrganizationID)
		next(huma.WithContext(ctx, store.WithOrigin(request, c.origin(ctx))))
	}
}

// CallerFor authenticates a request and charges it to its credential or, without a
// valid one, to its address, before anything else is looked up. On refusal it still
// returns the caller, as far as known.
func (a *API) CallerFor(ctx huma.Context, op Operation) (Caller, error) {
	request := humagin.Unwrap(ctx)
	c := Caller{Lang: langOf(ctx.Context()), Address: request.ClientIP(), HeaderCredential: CredentialOf(request.Request)}
	var err error
	if c.Page, err = a.pageOf(request); err != nil {
		return c, cmp.Or(a.ChargeAddress(request), err)
	}
	named := ctx.Header("X-APP-ID") // an id or a short name, until the request is charged
	// An operation that needs no credential still takes the organization from one.
	guest := op.Guests && named != "" && c.credential() == ""
	signedIn := op.Roles != Public && !guest
	if link := ctx.Query("token"); op.CalendarLink && link != "" && c.credential() == "" {
		err = a.recogniseLink(request, &c, link)
	} else if signedIn || named == "" && op.Tenant == TenantFromHeader && c.credential() != "" {
		err = a.recognise(request, &c)
	} else {
		err = a.ChargeAddress(request)
	}
	if err == nil && named != "" {
		var id string
		id, err = a.Directory.ResolveID(ctx.Context(), named)
		switch {
		case err == nil:
			named = id
		case models.CodeOf(err) == models.CodeOrgMissing && c.Principal.OrganizationID != "":
			err = nil // refused below: it is not the credential's own
		}
	}
	if err == nil && c.Principal.OrganizationID != "" {
		c.OrganizationID = c.Principal.OrganizationID
		err = a.EnterOrganization(ctx.Context(), &c)
	}
	if err != nil {
		return c, err
	}
	if signedIn {
		if op.Roles&RoleOf(c.Principal) == 0 {
			return c, models.Errorf(models.CodeForbidden, "This credential may not do this.")
		}
		if err := op.Allows(c.Principal); err != nil {
			return c, err
		}
	}
	switch {
	case op.Tenant == NoTenant:
		c.OrganizationID = named
		return c, nil
	case c.OrganizationID != "" && named != "" && named != c.OrganizationID:
		return c, models.Errorf(models.CodeForbidden, "The credential does not act for the organization that X-APP-ID names.")
	case c.OrganizationID != "":
		return c, nil
	case named != "":
		c.OrganizationID = named
		return c, a.EnterOrganization(ctx.Context(), &c)
	case op.Tenant == TenantOptional:
		return c, nil
	}
	return c, models.Errorf(models.CodeAppRequired, "Name the organization in the header X-APP-ID.")
}

// recognise finds the principal of a request's credential and charges the request to
// it.
func (a *API) recognise(request *gin.Context, c *Caller) error {
	p, left, err := a.Authenticate(request.Request.Context(), c.Address, c.credential())
	if err == nil {
		c.Principal, left = p, a.Charge(request.Request.Context(), p)
		err = left.Err()
	}
	if left.Limit > 0 {
		a.SetLimitHeaders(request, left)
	}
	return err
}

// recogniseLink is recognise for the token of a link to a booking's calendar file.
func (a *API) recogniseLink(request *gin.Context, c *Caller, token string) error {
	p, err := a.Access.CalendarLink(request.Request.Context(), request.Param("bookingId"), token)
	if err != nil {
		return cmp.Or(a.ChargeAddress(request), err)
	}
	c.Principal = p
	left := a.Charge(request.Request.Context(), p)
	a.SetLimitHeaders(request, left)
	return left.Err()
}

// EnterOrganization sets the caller's Organization and, of a provider, the resources.
// It fails with CodeOrgMissing if there is no such organization, and with
// CodeUnauthenticated if the credential is of a deleted one.
func (a *API) EnterOrganization(ctx context.Context, c *Caller) error {
	o, err := a.Directory.Get(ctx, c.OrganizationID)
	if err != nil && c.Principal.OrganizationID != "" && models.CodeOf(err) == models.CodeOrgMissing {
		return models.Errorf(models.CodeUnauthenticated, "The organization is gone, and this credential with it.")
	}
	c.Organization = o
	if err == nil && c.Role == models.RoleProvider {
		c.ResourceIDs, c.Views = o.actedForBy(c.SubjectID), o.views[c.SubjectID]
	}
	return err
}

// origin describes the caller for the audit.
func (c Caller) origin(ctx huma.Context) store.Origin {
	kind := string(c.Kind)
	if kind == "" {
		kind = "nobody"
	}
	return store.Origin{
		Kind: kind, ID: c.SubjectID, Role: c.Role, Address: c.Address, RequestID: requestID(ctx.Context()),
	}
}

// credential returns the credential in the headers, or else that of the page's
// session.
func (c Caller) credential() string {
	if c.HeaderCredential != "" {
		return c.HeaderCredential
	}
	return c.Page.credential()
}

// CredentialOf returns the credential in Authorization or X-API-KEY. A header that is
// sent twice is one header with both values (RFC 9110, section 5.3), which is no
// valid credential.
func CredentialOf(r *http.Request) string {
	only := func(name string) string { return strings.Join(r.Header.Values(name), ", ") }
	scheme, token, _ := strings.Cut(only("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return only("X-API-KEY") // another scheme is for a proxy in between
}

// countUse counts a finished request for its API key. A request without an answer yet
// panicked, so it counts as an error.
func (a *API) countUse(c *gin.Context, p access.Principal) {
	a.Access.Used(p, !c.Writer.Written() || c.Writer.Status() >= http.StatusBadRequest)
}
