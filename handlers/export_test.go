package handlers

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"nowserving/handlers/api"
)

// ServeNothing adds routes that answer the same without doing anything: at
// /nothing/bare without a credential, and at /nothing/known after authentication.
// /nothing/panic panics.
func (s *Server) ServeNothing() {
	op := api.Operation{Method: http.MethodGet, Roles: api.Staff | api.Customers}
	nothing := func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"result": ""}) }
	s.api.Router.GET("/nothing/bare", nothing)
	s.api.Router.GET("/nothing/panic", func(*gin.Context) { panic("a secret cause") })
	s.api.Router.GET("/nothing/known", func(c *gin.Context) {
		if _, err := s.api.CallerFor(humagin.NewContext(&huma.Operation{}, c), op); err != nil {
			s.api.WriteError(c, err)
		}
	}, nothing)
}
