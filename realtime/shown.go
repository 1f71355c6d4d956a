package realtime

// Shown returns, by organization and booking, the position that the booking's
// customer was last sent over a connection to this node. Other watchers of the
// booking don't count.
func (h *Hub) Shown() map[string]map[string]int {
	h.mu.RLock()
	organizations := make([]*tenantHub, 0, len(h.organizations))
	for _, o := range h.organizations {
		organizations = append(organizations, o)
	}
	h.mu.RUnlock()
	shown := map[string]map[string]int{}
	for _, o := range organizations {
		places := map[string]int{}
		o.mu.Lock()
		for id, b := range o.bookings {
			for _, s := range b.watchers {
				if !s.own || !s.waits {
					continue
				}
				s.conn.mu.Lock()
				if s.sent > 0 && !s.left && !s.conn.dead {
					places[id] = s.sent
				}
				s.conn.mu.Unlock()
			}
		}
		o.mu.Unlock()
		if len(places) > 0 {
			shown[o.id] = places
		}
	}
	return shown
}
