package handlers

import (
	"context"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/models"
)

// who is a set of credentials.
type who uint16

// The credentials there are.
const (
	accountKey who = 1 << iota
	organizationKey
	owner
	admin
	receptionist
	provider
	screen
	customer
	ticket
	display

	// nobody needs no credential.
	nobody who = 0
)

// The sets operations name.
const (
	anyKey    = accountKey | organizationKey
	managers  = anyKey | owner | admin
	members   = owner | admin | receptionist | provider
	staff     = anyKey | members
	people    = members | screen | customer
	customers = customer
	patients  = customer | ticket
)

// whoNames are the credentials in words, for the API reference.
var whoNames = []struct {
	who  who
	name string
}{
	{accountKey, "account key"}, {organizationKey, "organization key"}, {owner, "owner"}, {admin, "admin"},
	{receptionist, "receptionist"}, {provider, "provider"}, {screen, "screen"}, {customer, "customer"}, {ticket, "ticket"}, {display, "display"},
}

func (w who) names() []string {
	names := []string{}
	for _, n := range whoNames {
		if w&n.who != 0 {
			names = append(names, n.name)
		}
	}
	return names
}

// whoIs says which credential a principal came with.
func whoIs(p access.Principal) who {
	switch p.Kind {
	case access.KindAccount:
		return accountKey
	case access.KindOrganization:
		return organizationKey
	case access.KindCustomer:
		return customer
	case access.KindTicket:
		return ticket
	case access.KindDisplay:
		return display
	case access.KindMember:
		switch p.Role {
		case models.RoleOwner:
			return owner
		case models.RoleAdmin:
			return admin
		case models.RoleReceptionist:
			return receptionist
		case models.RoleProvider:
			return provider
		case models.RoleScreen:
			return screen
		}
	}
	return nobody
}

// tenancy says how an operation learns the organization it is about. Unless it
// says otherwise, from the credential, or from X-APP-ID for an account key.
type tenancy int

const (
	// fromHeader: X-APP-ID alone, for what needs no credential.
	fromHeader tenancy = iota + 1
	// optional: the credential's, or none for an account key without X-APP-ID.
	optional
	// untold: the operation asks for itself.
	untold
)

// caller is who makes a request, for which organization, in which language.
type caller struct {
	access.Principal
	OrganizationID string
	// organization is what it offers; nil where none is named.
	organization *organization
	// ResourceIDs are the resources a provider acts for.
	ResourceIDs []string
	// Views are whose bookings a provider may look at besides.
	Views access.Views
	Lang  string
	// Address is the network address the request comes from.
	Address string
	page    *page  // nil for other clients than our pages
	binding string // of page tokens to the request's query
	came    string // the credential in the headers, checked or not
}

// scope is what the caller may touch among bookings.
func (c caller) scope() booking.Scope {
	sc := booking.Scope{OrganizationID: c.OrganizationID}
	switch {
	case c.Kind == access.KindCustomer:
		sc.CustomerID = c.SubjectID
	case c.Kind == access.KindTicket:
		sc.BookingID = c.BookingID
	case c.Role == models.RoleProvider:
		sc.Provider, sc.Resources, sc.Confirmed, sc.Requests = true, c.ResourceIDs, c.Views.Confirmed, c.Views.Requests
	}
	return sc
}

// customers is which customers the caller may reach.
func (c caller) customers() access.CustomerScope {
	if (staff|customers)&whoIs(c.Principal) == 0 {
		return access.CustomerScope{}
	}
	return c.scope().Customers()
}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(keyCaller).(caller)
	return c
}

// international adds the country code of the caller's organization to a local number.
func (c caller) international(phone string) string {
	if c.organization == nil {
		return phone
	}
	return access.International(phone, catalog.CountryOf(&c.organization.Organization))
}

// operation is one route of the API: what it is called, who may call it and
// how it learns the organization.
type operation struct {
	method  string
	path    string
	id      string
	tag     string
	summary string
	about   string
	who     who
	guests  bool         // guests need no credential
	scope   access.Scope // of API keys; by default as the method says
	tenancy tenancy
	example any    // of the request's body
	file    string // what a browser keeps the answer as; empty: it shows it
}

// register adds an operation to the API. Its handler gets the caller and the
// checked input; every error it returns goes through the one mapping.
func register[I, O any](s *Server, op operation, handle func(ctx context.Context, c caller, in *I) (O, error)) {
	s.operations = append(s.operations, op)
	allDescribed(reflect.TypeFor[I]())
	documented := s.documented(op)
	documented.Middlewares = huma.Middlewares{s.admit(op)}
	if op.file != "" {
		documented.Middlewares = append(documented.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
			ctx.SetHeader("Content-Disposition", `attachment; filename="`+op.file+`"`)
			next(ctx)
		})
	}
	if op.method != http.MethodGet {
		documented.Middlewares = append(documented.Middlewares, s.readBody)
	}
	if op.repeatable() {
		documented.Middlewares = append(documented.Middlewares, s.onlyOnce)
	}
	huma.Register(s.api, documented, func(ctx context.Context, in *I) (*bodyOf[O], error) {
		c := callerOf(ctx)
		var err error
		if b, ok := any(in).(pagedBody); ok {
			if c.binding, err = bound(c.binding, b); err == nil {
				*b.pageToken(), err = s.pages.open(*b.pageToken(), c.binding)
			}
		}
		var out O
		if err == nil {
			out, err = handle(ctx, c, in)
		}
		if err != nil {
			return nil, s.problem(ctx, err)
		}
		if p, ok := any(&out).(pagedAnswer); ok && p.page().NextPageToken != nil {
			token := s.pages.seal(*p.page().NextPageToken, c.binding)
			p.page().NextPageToken = &token
		}
		return &bodyOf[O]{out}, nil
	})
	s.finish(op)
}

// allDescribed panics at the start if a body embeds an unexported struct: the
// framework would not describe its members, and requests with them would be refused.
func allDescribed(input reflect.Type) {
	body, ok := input.FieldByName("Body")
	if !ok || body.Type.Kind() != reflect.Struct {
		return
	}
	for _, field := range reflect.VisibleFields(body.Type) {
		if field.Anonymous && !field.IsExported() {
			panic(fmt.Sprintf("handlers: %s embeds %s, whose name has to be exported", body.Type, field.Type))
		}
	}
}

// bodyOf is an answer of 200 with a body and nothing else.
type bodyOf[T any] struct{ Body T }
