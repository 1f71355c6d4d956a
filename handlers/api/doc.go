// Package api is the kernel of the HTTP API. Every route of the product is one
// Operation that Register adds to an API:
//
//	api.Register(a, api.Operation{
//		Method: http.MethodGet, Path: "/management/types", ID: "listTypes",
//		Tag: "Types", Roles: api.Staff, Summary: "List booking types",
//	}, func(ctx context.Context, c api.Caller, in *api.Paging) (api.List[typeView], error) { … })
//
// What all routes have in common is here, so that an operation holds only its own
// rule:
//   - authentication: the credential, its role and scope, the organization
//   - limits: requests, sizes and times
//   - repeated requests: Idempotency-Key
//   - the form of requests and answers: unknown members, page tokens, languages
//   - errors: a [Problem] for each
//   - the OpenAPI document
//
// Requests pass these steps in order: an id, the security headers, the recovery
// from panics, the deadline, CORS, the address (middleware.go, cors.go); then the
// credential, the organization and the limits (authenticate.go, ratelimit.go); then
// the body, Idempotency-Key and validation; then the operation.
//
// A struct that others embed in a request or an answer has an exported name: the
// framework overlooks the fields of any other.
package api
