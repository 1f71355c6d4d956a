package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"nowserving/booking/access"
)

// Operation describes one route of the API.
type Operation struct {
	Method string
	// Path has parameters in braces, such as /management/types/{typeId}.
	Path string
	// ID is the operationId. It names the method in generated clients.
	ID      string
	Tag     string
	Summary string
	// About is the description. The roles and the scope are added to it.
	About string
	// Roles may call the operation. The zero value is Public.
	Roles Roles
	// Guests reports whether the operation may also be called without a credential.
	Guests bool
	// CalendarLink reports whether the query parameter token is accepted in place of
	// headers; see access.CalendarLink. The path names the booking as bookingId.
	CalendarLink bool
	// Scope is what an API key needs. Default read for a GET, write for the rest.
	Scope  access.Scope
	Tenant TenantSource
	// Example is an example of the request's body.
	Example any
	// MaxBody bounds the request's body, in bytes. Default MaxBody.
	MaxBody int64
	// File is the name under which a browser saves the answer. If it is empty, the
	// browser shows the answer.
	File string
}

// TenantSource says how a request names its organization.
type TenantSource int

const (
	// TenantFromCredential takes the organization of the credential. An account
	// key, which has none, needs X-APP-ID.
	TenantFromCredential TenantSource = iota
	// TenantFromHeader needs X-APP-ID, as public operations do.
	TenantFromHeader
	// TenantOptional is TenantFromCredential, but an account key may omit X-APP-ID.
	TenantOptional
	// NoTenant leaves the organization to the operation.
	NoTenant
)

// Body is the input or the answer of an operation that has only a body.
type Body[B any] struct{ Body B }

// Register adds an operation. handle gets the caller and the validated input. Its
// errors are answered as Problems.
//
// It panics if the framework can't describe the input or the answer; see check.
func Register[I, O any](a *API, op Operation, handle func(ctx context.Context, c Caller, in *I) (O, error)) {
	a.operations = append(a.operations, op)
	if op.MaxBody > 0 {
		a.large[op.Method+" "+routerPath(op.Path)] = true
	}
	check[I, O]()
	documented := a.documented(op)
	documented.Middlewares = huma.Middlewares{a.admit(op)}
	if op.File != "" {
		documented.Middlewares = append(documented.Middlewares, func(ctx huma.Context, next func(huma.Context)) {
			ctx.SetHeader("Content-Disposition", `attachment; filename="`+op.File+`"`)
			next(ctx)
		})
	}
	if op.Method != http.MethodGet {
		documented.Middlewares = append(documented.Middlewares, a.readBody(cmp.Or(op.MaxBody, MaxBody)))
	}
	if op.repeatable() {
		documented.Middlewares = append(documented.Middlewares, a.onlyOnce)
	}
	huma.Register(a.huma, documented, func(ctx context.Context, in *I) (*Body[O], error) {
		c := CallerOf(ctx)
		if b, ok := any(in).(PagedBody); ok {
			if err := a.pages.openBody(&c, b); err != nil {
				return nil, a.ProblemOf(ctx, err)
			}
		}
		out, err := handle(ctx, c, in)
		if err != nil {
			return nil, a.ProblemOf(ctx, err)
		}
		if p, ok := any(&out).(PagedAnswer); ok {
			a.pages.sealAnswer(c, p)
		}
		return &Body[O]{out}, nil
	})
	a.finish(op)
}

// routerPath is the path of an operation as the router writes it.
func routerPath(path string) string {
	return strings.NewReplacer("{", ":", "}", "").Replace(path)
}

// check panics if a type of an operation would be handled wrongly without notice:
//   - The framework overlooks the fields of an unexported struct that a body
//     embeds, so requests with them would be refused.
//   - A page token would be neither opened nor sealed if the type that holds it
//     did not implement PagedBody or PagedAnswer.
func check[I, O any]() {
	in, out := reflect.TypeFor[I](), reflect.TypeFor[O]()
	if body, ok := in.FieldByName("Body"); ok && body.Type.Kind() == reflect.Struct {
		for _, field := range reflect.VisibleFields(body.Type) {
			if field.Anonymous && !field.IsExported() {
				panic(fmt.Sprintf("api: %s embeds %s, whose name has to be exported", body.Type, field.Type))
			}
			if field.Tag.Get("json") == pageTokenName && !reflect.PointerTo(in).Implements(reflect.TypeFor[PagedBody]()) {
				panic(fmt.Sprintf("api: %s has a page token and is no PagedBody", in))
			}
		}
	}
	if out.Kind() != reflect.Struct {
		return
	}
	for _, field := range reflect.VisibleFields(out) {
		if field.Type == reflect.TypeFor[Pagination]() && !reflect.PointerTo(out).Implements(reflect.TypeFor[PagedAnswer]()) {
			panic(fmt.Sprintf("api: %s has a page token and is no PagedAnswer", out))
		}
	}
}
