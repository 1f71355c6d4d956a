package api

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"nowserving/booking/access"
	"nowserving/booking/cache"
	"nowserving/booking/catalog"
	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/realtime"
)

const (
	// directoryLife is how long another node's change of an organization may stay
	// unseen, and shortNameLife how long that of a short name.
	directoryLife = 4 * time.Second
	shortNameLife = 2 * time.Second
	// directoryPage is how many rows a query reads, and directoryLimit how many rows
	// of a kind are kept for one organization.
	directoryPage  = 500
	directoryLimit = 5000
	// maxDirectories bounds the organizations, and the short names, that are kept.
	maxDirectories = 1000
	// maxClinics bounds the networks of organizations that are kept. Beyond it all are
	// dropped, until their organizations are read again.
	maxClinics = 10_000
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
	Website      models.Website // the default version
	// CustomerFields and BookingFields are the custom fields.
	CustomerFields, BookingFields models.CustomFields

	views    map[string]access.Views // by member
	Live     realtime.Catalogue
	networks []netip.Prefix // that its patients share
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
// one through another node within 4 s.
type Directory struct {
	catalog *catalog.Catalog
	access  *access.Access

	organizations cache.Cache[string, *Organization]
	ids           cache.Cache[string, string] // by short name

	mu sync.Mutex
	// clinics are the organizations that named a network when they were last read.
	clinics map[netip.Prefix]string
}

func newDirectory(c *catalog.Catalog, a *access.Access) *Directory {
	return &Directory{
		catalog: c, access: a, clinics: map[netip.Prefix]string{},
		organizations: cache.Cache[string, *Organization]{Life: directoryLife, Max: maxDirectories},
		ids:           cache.Cache[string, string]{Life: shortNameLife, Max: maxDirectories},
	}
}

// ResolveID returns the id that an organization's id or short name stands for. It fails
// with CodeOrgMissing if no organization has the short name.
func (d *Directory) ResolveID(ctx context.Context, name string) (string, error) {
	lower := strings.ToLower(name)
	if !catalog.IsShortName(lower) {
		return name, nil
	}
	return d.ids.Get(ctx, lower, func() (string, error) { return d.catalog.IDOf(ctx, lower) })
}

// Get returns an organization, at most 4 s old. It fails with CodeOrgMissing if there
// is none.
func (d *Directory) Get(ctx context.Context, organizationID string) (*Organization, error) {
	o, err := d.organizations.Get(ctx, organizationID, func() (*Organization, error) { return d.load(ctx, organizationID) })
	if models.CodeOf(err) == models.CodeOrgMissing {
		d.organizations.Forget(organizationID) // it was deleted
	}
	return o, err
}

// ClinicAt returns the organization that names an address as its clinic's, or "":
// organizationID or, if that is empty, any. It looks at cached organizations only.
func (d *Directory) ClinicAt(address, organizationID string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	ip = ip.Unmap().WithZone("")
	if organizationID != "" {
		if id, _, ok := d.ids.Peek(strings.ToLower(organizationID)); ok { // it was a short name
			organizationID = id
		}
		if !d.atClinic(organizationID, ip) {
			return ""
		}
		return organizationID
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.clinics) == 0 {
		return ""
	}
	for bits := ip.BitLen(); bits >= leastClinicBits; bits-- {
		id, ok := d.clinics[netip.PrefixFrom(ip, bits).Masked()]
		if ok && d.atClinic(id, ip) {
			return id
		}
	}
	return ""
}

// leastClinicBits is the prefix length of the widest network that an organization may
// name.
const leastClinicBits = 24

// atClinic reports whether an address is one of the clinic's, of a cached organization.
func (d *Directory) atClinic(organizationID string, ip netip.Addr) bool {
	o, _, ok := d.organizations.Peek(organizationID)
	return ok && slices.ContainsFunc(o.networks, func(network netip.Prefix) bool { return network.Contains(ip) })
}

// remember lists the networks of an organization in clinics.
func (d *Directory) remember(o *Organization) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.clinics)+len(o.networks) > maxClinics {
		clear(d.clinics)
	}
	for _, network := range o.networks {
		d.clinics[network] = o.ID
	}
}

// CatalogueChanged makes this node, other nodes and open pages read an organization's
// catalogue again.
func (a *API) CatalogueChanged(ctx context.Context, organizationID string) {
	a.Directory.Forget(organizationID)
	a.Bookings.AnnounceCatalogue(ctx, organizationID)
}

// Forget drops an organization after a change, so that the next Get reads it.
func (d *Directory) Forget(organizationID string) {
	d.organizations.Forget(organizationID)
	d.ids.ForgetValues(func(id string) bool { return id == organizationID })
}

func (d *Directory) load(ctx context.Context, organizationID string) (*Organization, error) {
	o := &Organization{
		TypeByID: map[string]*models.BookingType{}, ResourceByID: map[string]*models.Resource{},
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
	if o.Website, err = d.catalog.Website(ctx, row, models.VersionDefault); err != nil {
		return nil, err
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
	if o.CustomerFields, err = d.catalog.CustomFields(ctx, organizationID, models.CustomerFields); err != nil {
		return nil, err
	}
	if o.BookingFields, err = d.catalog.CustomFields(ctx, organizationID, models.BookingFields); err != nil {
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
	d.remember(o)
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
