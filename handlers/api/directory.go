package api

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/realtime"
)

const (
	// directoryLife is how long another node's change may stay unseen. It is twice
	// that while a request reads the change.
	directoryLife = 2 * time.Second
	// directoryPage is how many rows a query reads, and directoryLimit how many rows
	// of a kind are kept for one organization.
	directoryPage  = 500
	directoryLimit = 5000
	// maxDirectories bounds the organizations that are kept. Beyond it all are
	// dropped.
	maxDirectories = 1000
)

// Organization is an organization with its catalogue, as read at one moment. It must
// not be modified.
type Organization struct {
	models.Organization
	Zone         *time.Location
	Types        []models.BookingType // in the order they were made
	Resources    []models.Resource
	TypeByID     map[string]*models.BookingType
	ResourceByID map[string]*models.Resource
	views        map[string]access.Views // by member
	Live         realtime.Catalogue
	networks     []netip.Prefix // that its patients share
	read         time.Time
}

// actedForBy returns the resources that name a member as their provider.
func (o *Organization) actedForBy(memberID string) []string {
	ids := []string{}
	for i := range o.Resources {
		if provider := o.Resources[i].ProviderID; provider != nil && *provider == memberID {
			ids = append(ids, o.Resources[i].ID)
		}
	}
	return ids
}

// Directory caches the organizations with their catalogues: names, minutes, time
// zones and the rights of providers. A change through this node is seen at once, and
// one through another node within 2 s.
type Directory struct {
	catalog *catalog.Catalog
	access  *access.Access

	mu      sync.Mutex
	entries map[string]*entry
	// clinics are the organizations that were read, by the networks they name.
	clinics map[netip.Prefix]string
	ids     map[string]knownID // by short name
}

// knownID is the id that a short name stood for when it was read.
type knownID struct {
	id   string
	read time.Time
}

type entry struct {
	reading chan struct{} // holds one while a request reads for all

	// Guarded by directory.mu.
	known   *Organization
	changes int // made since the start; tells a reading that it is outdated
}

func newDirectory(c *catalog.Catalog, a *access.Access) *Directory {
	return &Directory{catalog: c, access: a, entries: map[string]*entry{}, ids: map[string]knownID{}, clinics: map[netip.Prefix]string{}}
}

// ResolveID returns the id that an organization's id or short name stands for. It fails
// with CodeOrgMissing if no organization has the short name.
func (d *Directory) ResolveID(ctx context.Context, name string) (string, error) {
	lower := strings.ToLower(name)
	if !catalog.IsShortName(lower) {
		return name, nil
	}
	name = lower
	d.mu.Lock()
	known, ok := d.ids[name]
	d.mu.Unlock()
	if ok && time.Since(known.read) < directoryLife {
		return known.id, nil
	}
	id, err := d.catalog.IDOf(ctx, name)
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ids) >= maxDirectories {
		clear(d.ids)
	}
	d.ids[name] = knownID{id, time.Now()}
	return id, nil
}

// Get returns an organization, at most 4 s old. It fails with CodeOrgMissing if there
// is none.
func (d *Directory) Get(ctx context.Context, organizationID string) (*Organization, error) {
	d.mu.Lock()
	e := d.entries[organizationID]
	if e == nil {
		if len(d.entries) >= maxDirectories {
			clear(d.entries)
			clear(d.clinics)
		}
		e = &entry{reading: make(chan struct{}, 1)}
		d.entries[organizationID] = e
	}
	known := e.known
	d.mu.Unlock()
	if known != nil && time.Since(known.read) < directoryLife {
		return known, nil
	}
	select {
	case e.reading <- struct{}{}:
	default:
		if known != nil && time.Since(known.read) < 2*directoryLife {
			return known, nil // it is being read anew; a crowd need not wait for that
		}
		select {
		case e.reading <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer func() { <-e.reading }()
	d.mu.Lock()
	known = e.known
	changes := e.changes
	d.mu.Unlock()
	if known != nil && time.Since(known.read) < directoryLife {
		return known, nil // another request read it meanwhile
	}
	fresh, err := d.load(ctx, organizationID)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		gone := e.known == nil || models.CodeOf(err) == models.CodeOrgMissing
		if gone && d.entries[organizationID] == e {
			d.index(e.known, nil)
			delete(d.entries, organizationID) // it was deleted, or the name is made up
		}
		return nil, err
	}
	if changes == e.changes && d.entries[organizationID] == e {
		d.index(e.known, fresh)
		e.known = fresh
	}
	return fresh, nil
}

// index replaces the networks of an organization in clinics. d.mu must be held.
func (d *Directory) index(before, after *Organization) {
	if before != nil {
		for _, network := range before.networks {
			if d.clinics[network] == before.ID {
				delete(d.clinics, network)
			}
		}
	}
	if after != nil {
		for _, network := range after.networks {
			d.clinics[network] = after.ID
		}
	}
}

// ClinicAt returns the organization that names an address as its clinic's, or "":
// organizationID or, if that is empty, any. It looks at cached organizations only.
func (d *Directory) ClinicAt(address, organizationID string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	ip = ip.Unmap().WithZone("")
	d.mu.Lock()
	defer d.mu.Unlock()
	if organizationID != "" {
		if known, ok := d.ids[strings.ToLower(organizationID)]; ok { // it was a short name
			organizationID = known.id
		}
		e := d.entries[organizationID]
		if e == nil || e.known == nil || !e.known.atClinic(ip) {
			return ""
		}
		return organizationID
	}
	if len(d.clinics) == 0 {
		return ""
	}
	for bits := ip.BitLen(); bits >= leastClinicBits; bits-- {
		if id := d.clinics[netip.PrefixFrom(ip, bits).Masked()]; id != "" {
			return id
		}
	}
	return ""
}

// leastClinicBits is the prefix length of the widest network that an organization may
// name.
const leastClinicBits = 24

// atClinic reports whether an address is one of the clinic's.
func (o *Organization) atClinic(ip netip.Addr) bool {
	return slices.ContainsFunc(o.networks, func(network netip.Prefix) bool { return network.Contains(ip) })
}

// CatalogueChanged makes this node, other nodes and open pages read an organization's
// catalogue again.
func (a *API) CatalogueChanged(ctx context.Context, organizationID string) {
	a.Directory.Forget(organizationID)
	a.Bookings.AnnounceCatalogue(ctx, organizationID)
}

// Forget drops an organization after a change, so that the next Get reads it.
func (d *Directory) Forget(organizationID string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.entries[organizationID]; e != nil {
		d.index(e.known, nil)
		e.known = nil
		e.changes++
	}
	maps.DeleteFunc(d.ids, func(_ string, known knownID) bool { return known.id == organizationID })
}

func (d *Directory) load(ctx context.Context, organizationID string) (*Organization, error) {
	o := &Organization{
		TypeByID: map[string]*models.BookingType{}, ResourceByID: map[string]*models.Resource{}, read: time.Now(),
		Live: realtime.Catalogue{Resources: map[string]realtime.Resource{}, Types: map[string]realtime.Type{}, Read: time.Now()},
	}
	row, err := d.catalog.Organization(ctx, organizationID)
	if err != nil {
		return nil, err
	}
	o.Organization, o.networks = *row, catalog.Networks(row)
	if o.Zone, err = time.LoadLocation(o.Timezone); err != nil {
		return nil, fmt.Errorf("time zone of organization %s: %w", organizationID, err)
	}
	o.Types, err = readAll(func(page store.Page) ([]models.BookingType, error) {
		return d.catalog.Types(ctx, organizationID, false, page)
	}, func(t *models.BookingType) string { return t.ID })
	if err != nil {
		return nil, err
	}
	o.Resources, err = readAll(func(page store.Page) ([]models.Resource, error) {
		return d.catalog.Resources(ctx, organizationID, catalog.ResourceFilter{}, page)
	}, func(r *models.Resource) string { return r.ID })
	if err != nil {
		return nil, err
	}
	if o.views, err = d.access.Views(ctx, organizationID); err != nil {
		return nil, err
	}
	for i := range o.Types {
		t := &o.Types[i]
		o.TypeByID[t.ID] = t
		o.Live.Types[t.ID] = realtime.Type{Name: t.Name, Translations: t.NameTranslations, Minutes: t.Minutes}
	}
	for i := range o.Resources {
		r := &o.Resources[i]
		o.ResourceByID[r.ID] = r
		o.Live.Resources[r.ID] = realtime.Resource{Name: r.Name, Translations: r.NameTranslations}
	}
	return o, nil
}

// readAll reads a list page by page, up to directoryLimit rows.
func readAll[T any](read func(store.Page) ([]T, error), id func(*T) string) ([]T, error) {
	var all []T
	page := store.Page{Limit: directoryPage}
	for len(all) < directoryLimit {
		rows, err := read(page)
		if err != nil {
			return nil, fmt.Errorf("read the catalogue: %w", err)
		}
		rows, page.After = store.CutPage(rows, directoryPage, id)
		all = append(all, rows...)
		if page.After == "" {
			break
		}
	}
	return slices.Clip(all), nil
}
