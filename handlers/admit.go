package handlers

import (
	"cmp"
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"nowserving/booking/store"
	"nowserving/models"
)

// admit lets a request through to an operation when its credential is one the
// operation names and its organization is one the credential acts for.
func (s *Server) admit(op operation) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		ctx.SetHeader("Cache-Control", "no-store")
		c, err := s.callerFor(ctx, op)
		defer s.countUse(humagin.Unwrap(ctx), c.Principal)
		s.share(humagin.Unwrap(ctx), c.OrganizationID, err)
		if err != nil {
			s.answer(humagin.Unwrap(ctx), err)
			return
		}
		c.binding = bindingOf(ctx, op, c.OrganizationID)
		if token := ctx.Query(pageTokenName); token != "" {
			place, err := s.pages.open(token, c.binding)
			if err != nil {
				s.answer(humagin.Unwrap(ctx), err)
				return
			}
			ctx = opened{ctx, place}
		}
		ctx = huma.WithValue(ctx, keyCaller, c)
		request := store.ForOrganization(ctx.Context(), c.OrganizationID)
		next(huma.WithContext(ctx, store.WithOrigin(request, c.origin(ctx))))
	}
}

// callerFor authenticates a request and charges it to its credential or, without
// a valid one, to its address. Nothing is looked up for it before. On refusal it
// still returns what is known of the caller.
func (s *Server) callerFor(ctx huma.Context, op operation) (caller, error) {
	request := humagin.Unwrap(ctx)
	c := caller{Lang: langOf(ctx.Context()), Address: request.ClientIP(), came: credential(request.Request)}
	var err error
	if c.page, err = s.pageOf(request); err != nil {
		return c, cmp.Or(s.spendAddress(request), err)
	}
	named := ctx.Header("X-APP-ID") // an id or a short name, until the request is charged
	// An operation that needs no credential still takes the organization from one.
	guest := op.guests && named != "" && c.credential() == ""
	signedIn := op.who != nobody && !guest
	if signedIn || named == "" && op.tenancy == fromHeader && c.credential() != "" {
		err = s.recognise(request, &c)
	} else {
		err = s.spendAddress(request)
	}
	if err == nil && named != "" {
		var id string
		id, err = s.directory.idOf(ctx.Context(), named)
		switch {
		case err == nil:
			named = id
		case models.CodeOf(err) == models.CodeOrgMissing && c.Principal.OrganizationID != "":
			err = nil // refused below: it is not the credential's own
		}
	}
	if err == nil && c.Principal.OrganizationID != "" {
		c.OrganizationID = c.Principal.OrganizationID
		err = s.enter(ctx.Context(), &c)
	}
	if err != nil {
		return c, err
	}
	if signedIn {
		if op.who&whoIs(c.Principal) == 0 {
			return c, models.Errorf(models.CodeForbidden, "This credential may not do this.")
		}
		if err := op.allows(c.Principal); err != nil {
			return c, err
		}
	}
	switch {
	case op.tenancy == untold:
		c.OrganizationID = named
		return c, nil
	case c.OrganizationID != "" && named != "" && named != c.OrganizationID:
		return c, models.Errorf(models.CodeForbidden, "The credential does not act for the organization that X-APP-ID names.")
	case c.OrganizationID != "":
		return c, nil
	case named != "":
		c.OrganizationID = named
		return c, s.enter(ctx.Context(), &c)
	case op.tenancy == optional:
		return c, nil
	}
	return c, models.Errorf(models.CodeAppRequired, "Name the organization in the header X-APP-ID.")
}

// recognise finds the principal of a request's credential and charges the
// request.
func (s *Server) recognise(request *gin.Context, c *caller) error {
	p, left, err := s.authenticate(request.Request.Context(), c.Address, c.credential())
	if err == nil {
		c.Principal, left = p, s.charge(request.Request.Context(), p)
		err = left.tooMany()
	}
	if left.limit > 0 {
		s.show(request, left)
	}
	return err
}

// enter looks up the caller's organization: it must exist, and still exist for
// a credential made earlier. A provider acts for the resources that name them.
func (s *Server) enter(ctx context.Context, c *caller) error {
	o, err := s.directory.of(ctx, c.OrganizationID)
	if err != nil && c.Principal.OrganizationID != "" && models.CodeOf(err) == models.CodeOrgMissing {
		return models.Errorf(models.CodeUnauthenticated, "The organization is gone, and this credential with it.")
	}
	c.organization = o
	if err == nil && c.Role == models.RoleProvider {
		c.ResourceIDs, c.Views = o.actedForBy(c.SubjectID), o.views[c.SubjectID]
	}
	return err
}

// origin is who asks, as it is written down with what they change.
func (c caller) origin(ctx huma.Context) store.Origin {
	kind := string(c.Kind)
	if kind == "" {
		kind = "nobody"
	}
	return store.Origin{
		Kind: kind, ID: c.SubjectID, Role: c.Role, Address: c.Address, RequestID: requestID(ctx.Context()),
	}
}

// credential is what the caller came with: that of the headers, else that of
// the page.
func (c caller) credential() string {
	if c.came != "" {
		return c.came
	}
	return c.page.credential()
}

// credential is what came in Authorization or X-API-KEY. A header that came
// twice counts as one with both values (RFC 9110, section 5.3), which is no
// credential.
func credential(r *http.Request) string {
	only := func(name string) string { return strings.Join(r.Header.Values(name), ", ") }
	scheme, token, _ := strings.Cut(only("Authorization"), " ")
	if strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return only("X-API-KEY") // another scheme is for a proxy in between
}
