package handlers

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

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
