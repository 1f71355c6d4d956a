package handlers

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

// BePatient lets requests take longer, and wait longer to be counted: what a
// busy machine does late is not to count as what went wrong.
func (s *Server) BePatient(patience time.Duration) {
	s.timeout, s.limiter.patience = patience, patience
}

// ServeNothing adds operations that answer the same without doing anything: at
// /nothing/bare to anybody, and at /nothing/known once it is known who asks.
func (s *Server) ServeNothing() {
	type nothing struct {
		Body struct {
			Result string `json:"result"`
		}
	}
	handle := func(context.Context, *struct{}) (*nothing, error) { return &nothing{}, nil }
	op := operation{method: http.MethodGet, who: staff | customers}
	for path, before := range map[string]huma.Middlewares{
		"/nothing/bare": nil,
		"/nothing/known": {func(ctx huma.Context, next func(huma.Context)) {
			c, err := s.callerFor(ctx, op)
			if err != nil {
				s.answer(humagin.Unwrap(ctx), err)
				return
			}
			next(huma.WithValue(ctx, keyCaller, c))
		}},
	} {
		huma.Register(s.api, huma.Operation{Method: op.method, Path: path, OperationID: path, Middlewares: before}, handle)
	}
}

// Document is the OpenAPI document.
func (s *Server) Document() ([]byte, error) { return s.openAPI() }
