package handlers

// Routes lists what the router answers, as "GET /management/types/:typeId".
func (s *Server) Routes() []string {
	routes := make([]string, 0, len(s.api.Router.Routes()))
	for _, r := range s.api.Router.Routes() {
		routes = append(routes, r.Method+" "+r.Path)
	}
	return routes
}
