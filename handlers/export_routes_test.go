package handlers

import "strings"

// Routes lists what the router answers, as "GET /management/types/:typeId". The router
// knows a parameter with a suffix as two segments.
func (s *Server) Routes() []string {
	routes := make([]string, 0, len(s.api.Router.Routes()))
	for _, r := range s.api.Router.Routes() {
		routes = append(routes, r.Method+" "+strings.Replace(r.Path, "/.ics", ".ics", 1))
	}
	return routes
}
