package realtime

import (
	"context"
	"slices"

	"nowserving/models"
)

// isCatalogueChange reports whether an event is a change of the organization's names
// or durations: it is about no booking and no resource.
func isCatalogueChange(e *models.BookingEvent) bool {
	return e != nil && e.Type == models.EventQueueUpdated && e.ResourceID == ""
}

// readCatalogue gets names and durations from the source, which reads them again if
// the catalogue is among the changes.
func (o *tenantHub) readCatalogue(changes []change) Catalogue {
	fresh := slices.ContainsFunc(changes, func(c change) bool { return c.delta != nil && isCatalogueChange(c.delta.Event) })
	ctx, cancel := context.WithTimeout(o.hub.ctx, o.hub.opts.SourceTimeout)
	defer cancel()
	catalogue, err := o.hub.opts.Source.Catalogue(ctx, o.id, fresh)
	if err != nil {
		if o.hub.ctx.Err() == nil {
			o.hub.opts.Log.Warn("read names and durations", "organization", o.id, "error", err)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.catalogue
	}
	return catalogue
}

// renew replaces the catalogue and publishes its changes to the watchers of bookings.
// o.mu must be held.
func (o *tenantHub) renew(next Catalogue, b *batch) {
	old := o.catalogue
	o.catalogue = next
	if old.Read.IsZero() || old.Read.Equal(next.Read) {
		return
	}
	types, resources := changed(old.Types, next.Types), changed(old.Resources, next.Resources)
	b.displays = b.displays || len(resources) > 0
	if len(types) == 0 && len(resources) == 0 {
		return
	}
	for _, w := range o.bookings {
		for _, s := range w.watchers {
			if s.ready && (types[s.typeID] || resources[s.resourceID]) {
				o.tellNews(w, s, types[s.typeID], resources[s.resourceID], b)
			}
		}
	}
}

// tellNews publishes a change of the booking's type or resource to a watcher. The
// position is published again, because other minutes mean another wait.
func (o *tenantHub) tellNews(w *booking, s *subscription, ofType, ofResource bool, b *batch) {
	p := bookingUpdated{Publication: publication(models.EventUpdated), BookingID: w.id}
	if ofType {
		t := o.catalogue.Types[s.typeID]
		p.BookingType = &typeNews{s.typeID, t.Name, t.Translations, t.Minutes}
		s.told = 0
		b.moved[w] = struct{}{}
	}
	if ofResource {
		r := o.catalogue.Resources[s.resourceID]
		p.Resource = &resourceNews{s.resourceID, r.Name, r.Translations}
	}
	if data := o.encode(p); data != nil {
		s.conn.publish(s, data)
	}
}

// changed returns the ids that are in both maps with different values.
func changed[V comparable](old, next map[string]V) map[string]bool {
	ids := map[string]bool{}
	for id, before := range old {
		if now, still := next[id]; still && now != before {
			ids[id] = true
		}
	}
	return ids
}
