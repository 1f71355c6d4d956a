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
				if position := s.shown(); position > 0 {
					places[id] = position
				}
			}
		}
		o.mu.Unlock()
		if len(places) > 0 {
			shown[o.id] = places
		}
	}
	return shown
}

// shown returns the position that the customer of a waiting booking was last sent, or 0
// if this is no such subscription. organization.mu must be held.
func (s *subscription) shown() int {
	if !s.own || !s.waits {
		return 0
	}
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if s.left || s.conn.dead {
		return 0
	}
	return s.sent
}
