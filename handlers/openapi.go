package handlers

import (
	"github.com/danielgtaylor/huma/v2"
)

// serveDocuments serves the OpenAPI documents, with the webhooks and examples, and
// the AsyncAPI document of the live channels. All operations are registered before.
func (s *Server) serveDocuments() {
	s.api.ServeOpenAPI(func(document *huma.OpenAPI) {
		addWebhooks(document)
		addExamples(document, s.api.PublicURL)
	})
	s.api.ServeDocument("/asyncapi.json", func() ([]byte, error) { return liveDocument(s.api.Info(), s.api.PublicURL) })
}
