package catalog

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nyaruka/phonenumbers"
	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
)

const (
	// minShortName and maxShortName bound a short name, in characters.
	minShortName = 3
	maxShortName = 40
	// maxOrigins bounds the origins of an organization.
	maxOrigins = 50
	// maxOrigin bounds one of them, in bytes: a host name has at most 253.
	maxOrigin = 300
	// maxAddresses bounds the addresses of a clinic. A network among them has 24
	// bits or more in IPv4, and 48 or more in IPv6.
	maxAddresses = 20
	leastBits4   = 24
	leastBits6   = 48
	// maxDrops is how often the deletion of an organization is tried while others
	// write to it.
	maxDrops = 5
	// originSigns are what an origin is written with: a host is a name or an address.
	originSigns = "abcdefghijklmnopqrstuvwxyz0123456789-+._:/[]"
)

// noOrigins are schemes that name no site and no app. Apps have schemes of their
// own, such as capacitor and ionic, and are origins like web pages.
var noOrigins = []string{"about", "blob", "data", "file", "filesystem", "ftp", "javascript", "ws", "wss"}

// CreateOrganization makes an organization. Its time zone must be an IANA name.
func (c *Catalog) CreateOrganization(ctx context.Context, o *models.Organization) error {
	if err := checkOrganization(o); err != nil {
		return err
	}
	return c.store.Tx(ctx, func(tx *store.Tx) error {
		o.ID, o.CreatedAt = models.NewID(), tx.Now
		if err := tx.Create(o).Error; err != nil {
			return fmt.Errorf("create organization: %w", shortNameTaken(err))
		}
		if err := saveOrigins(tx, o); err != nil {
			return err
		}
		return tx.Audit(o.ID, "createOrganization", "organization", o.ID)
	})
}

// OrganizationChange changes an organization. Nil fields are unchanged.
type OrganizationChange struct {
	Name                 *string
	Timezone             *string
	BusinessTypeID       *string
	BusinessCustomConfig models.Fields
	AllowedOrigins       *[]string
	ClinicAddresses      *[]string
	OTPDailyLimit        *int
	ShortName            *string // empty: none
	Country              *string // empty: that of the time zone
	GuestJoin            *models.GuestJoin
	OnSiteCodeSealed     *string
}

// Apply changes an organization, without a check.
func (change OrganizationChange) Apply(o *models.Organization) {
	if change.Name != nil {
		o.Name = *change.Name
	}
	if change.Timezone != nil {
		o.Timezone = *change.Timezone
	}
	if change.BusinessTypeID != nil {
		o.BusinessTypeID = *change.BusinessTypeID
	}
	if change.BusinessCustomConfig != nil {
		o.BusinessCustomConfig = change.BusinessCustomConfig
	}
	if change.OTPDailyLimit != nil {
		o.OTPDailyLimit = change.OTPDailyLimit
	}
	if change.AllowedOrigins != nil {
		o.AllowedOrigins = *change.AllowedOrigins
	}
	if change.ClinicAddresses != nil {
		o.ClinicAddresses = *change.ClinicAddresses
	}
	if change.ShortName != nil {
		o.ShortName = change.ShortName
	}
	if change.Country != nil {
		o.Country = *change.Country
	}
	if change.GuestJoin != nil {
		o.GuestJoin = *change.GuestJoin
	}
	if change.OnSiteCodeSealed != nil {
		o.OnSiteCodeSealed = *change.OnSiteCodeSealed
	}
}

// UpdateOrganization changes an organization. A new time zone decides the local day of
// later tickets. Earlier tickets and the counts of each day stay, so that no number is
// drawn twice on one day.
func (c *Catalog) UpdateOrganization(ctx context.Context, id string, change OrganizationChange) (*models.Organization, error) {
	var o *models.Organization
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if o, err = organization(tx.DB, c.store.Lock(tx), id); err != nil {
			return err
		}
		change.Apply(o)
		if err := checkOrganization(o); err != nil {
			return err
		}
		if err := tx.Save(o).Error; err != nil {
			return fmt.Errorf("store organization: %w", shortNameTaken(err))
		}
		if err := saveOrigins(tx, o); err != nil {
			return err
		}
		return tx.Audit(id, "updateOrganization", "organization", id)
	})
	return o, err
}

// DeleteOrganization hides an organization: it is no longer found, its
// credentials are refused, its live connections closed, and nothing is sent for
// it. Everything of it stays in the database.
func (c *Catalog) DeleteOrganization(ctx context.Context, id string) (*models.Organization, error) {
	var o *models.Organization
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		var err error
		if o, err = organization(tx.DB, c.store.Lock(tx), id); err != nil {
			return err
		}
		o.DeletedAt = &tx.Now
		o.ShortName = nil // others may have it
		if err := tx.Model(o).Updates(map[string]any{"deleted_at": tx.Now, "short_name": nil}).Error; err != nil {
			return fmt.Errorf("delete organization: %w", err)
		}
		if err := tx.Revoke(store.RevokedOrganization, id); err != nil {
			return err
		}
		return tx.Audit(id, "deleteOrganization", "organization", id)
	})
	return o, err
}

// DropOrganization deletes an organization, hidden or not, with all its rows, for good.
// Only the account's audit still names it. Rows that are written meanwhile are deleted,
// too.
func (c *Catalog) DropOrganization(ctx context.Context, id string) (o *models.Organization, err error) {
	for range maxDrops {
		if o, err = c.dropOrganization(ctx, id); !store.IsOvertaken(err) {
			break
		}
	}
	return o, err
}

func (c *Catalog) dropOrganization(ctx context.Context, id string) (*models.Organization, error) {
	list := make([]models.Organization, 1)
	o := &list[0]
	err := c.store.Tx(ctx, func(tx *store.Tx) error {
		if err := organizationFound(tx.Where("id = ?", id).Take(o).Error); err != nil {
			return err
		}
		if err := withOrigins(tx.DB, list); err != nil {
			return err
		}
		if err := tx.DropOrganization(id); err != nil {
			return err
		}
		if err := tx.Revoke(store.RevokedOrganization, id); err != nil {
			return err
		}
		o.DeletedAt = &tx.Now
		return tx.Audit("", "dropOrganization", "organization", id)
	})
	return o, err
}

func checkOrganization(o *models.Organization) error {
	if strings.TrimSpace(o.Name) == "" {
		return models.Invalid("name", "An organization needs a name.")
	}
	if err := checkTimezone(o.Timezone); err != nil {
		return err
	}
	if err := checkShortName(o); err != nil {
		return err
	}
	if o.Country = strings.ToUpper(o.Country); o.Country != "" && !phonenumbers.GetSupportedRegions()[o.Country] {
		return models.Invalid("country", "%q is no country of ISO 3166-1, such as SA.", o.Country)
	}
	switch o.GuestJoin {
	case "":
		o.GuestJoin = models.GuestsOff
	case models.GuestsOff, models.GuestsTurnstile, models.GuestsOnSite:
	default:
		return models.Invalid("guestJoin", "It is off, turnstile or onSite.")
	}
	if len(o.AllowedOrigins) > maxOrigins {
		return models.Invalid("allowedOrigins", "An organization has at most %d origins.", maxOrigins)
	}
	origins := make([]string, len(o.AllowedOrigins))
	for i, text := range o.AllowedOrigins {
		var err error
		if origins[i], err = normalOrigin(text); err != nil {
			return err
		}
	}
	slices.Sort(origins)
	o.AllowedOrigins = slices.Compact(origins)
	return checkAddresses(o)
}

func checkTimezone(name string) error {
	if name == "" || name == "Local" {
		return models.Invalid("timezone", "Name a time zone of the IANA database, such as Asia/Riyadh.")
	}
	if _, err := time.LoadLocation(name); err != nil {
		return models.Invalid("timezone", "%q is no time zone of the IANA database.", name)
	}
	return nil
}

// checkAddresses brings the addresses of a clinic into the form they are stored
// in.
func checkAddresses(o *models.Organization) error {
	if len(o.ClinicAddresses) > maxAddresses {
		return models.Invalid("clinicAddresses", "A clinic has at most %d addresses.", maxAddresses)
	}
	addresses := make([]string, len(o.ClinicAddresses))
	for i, text := range o.ClinicAddresses {
		network, err := parseNetwork(text)
		if err != nil {
			return models.Invalid("clinicAddresses", "%q is neither an IP address nor a network such as 203.0.113.0/28.", text)
		}
		if bits := network.Bits(); network.Addr().Is4() && bits < leastBits4 || network.Addr().Is6() && bits < leastBits6 {
			return models.Invalid("clinicAddresses", "%q is too wide: a network has at least %d bits in IPv4 and %d in IPv6.", text, leastBits4, leastBits6)
		}
		if addresses[i] = network.String(); network.IsSingleIP() {
			addresses[i] = network.Addr().String()
		}
	}
	slices.Sort(addresses)
	o.ClinicAddresses = slices.Compact(addresses)
	return nil
}

// parseNetwork reads an address as a network of its own, or a network.
func parseNetwork(text string) (netip.Prefix, error) {
	address, err := netip.ParseAddr(text)
	if err == nil && address.Zone() == "" {
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	if err == nil && network.Addr().Is4In6() {
		err = errors.New("an IPv4 network is not written in IPv6")
	}
	return network.Masked(), err
}

// Networks are the addresses of a clinic, as networks.
func Networks(o *models.Organization) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range o.ClinicAddresses {
		if network, err := parseNetwork(text); err == nil { // it was checked when it was stored
			list = append(list, network)
		}
	}
	return list
}

var (
	shortName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)
	// idForm is what ids look like: a short name is never taken for one.
	idForm = regexp.MustCompile(`^[0-9a-v]{20}$`)
)

func checkShortName(o *models.Organization) error {
	if o.ShortName == nil {
		return nil
	}
	name := strings.ToLower(*o.ShortName)
	o.ShortName = &name
	switch {
	case name == "":
		o.ShortName = nil
	case !IsShortName(name):
		return models.Invalid("shortName", "A short name has %d to %d letters and digits, with single hyphens between, such as al-noor.", minShortName, maxShortName)
	}
	return nil
}

func shortNameTaken(err error) error {
	if store.IsDuplicate(err) {
		return models.Errorf(models.CodeOrgNameTaken, "Another organization has this short name.")
	}
	return err
}

// IsShortName reports whether a text can be a short name, and is no id.
func IsShortName(text string) bool {
	return len(text) >= minShortName && len(text) <= maxShortName && shortName.MatchString(text) && !idForm.MatchString(text)
}

// IDOf returns the id of the organization with a short name. It fails with
// CodeOrgMissing if there is none.
func (c *Catalog) IDOf(ctx context.Context, name string) (string, error) {
	var ids []string
	err := c.store.Read(ctx).Model(&models.Organization{}).Where("short_name = ? AND deleted_at IS NULL", name).Pluck("id", &ids).Error
	if err != nil {
		return "", fmt.Errorf("look for a short name: %w", err)
	}
	if len(ids) == 0 {
		return "", models.Errorf(models.CodeOrgMissing, "There is no such organization.")
	}
	return ids[0], nil
}

// zones is tzdb's zone.tab, of the public domain: each time zone with its country.
//
//go:embed zones.txt
var zones string

var countryOfZone = sync.OnceValue(func() map[string]string {
	countries := map[string]string{}
	for line := range strings.Lines(zones) {
		if zone, country, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			countries[zone] = country
		}
	}
	return countries
})

// CountryOf returns the country whose phone numbers need no country code in an
// organization: its own setting, else the country of its time zone, else "".
func CountryOf(o *models.Organization) string {
	return cmp.Or(o.Country, countryOfZone()[o.Timezone])
}

// normalOrigin returns an origin as browsers send it (RFC 6454, section 6.2):
// scheme://host[:port] in lower case, without the port the scheme implies.
func normalOrigin(text string) (string, error) {
	wrong := models.Invalid("allowedOrigins", "%q is no origin such as https://clinic.example or capacitor://localhost.", text)
	text = strings.ToLower(text)
	// A host with a * would be many in a Content-Security-Policy.
	if len(text) > maxOrigin || strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(originSigns, r) }) {
		return "", wrong
	}
	u, err := url.Parse(text)
	if err != nil || slices.Contains(noOrigins, u.Scheme) || u.Hostname() == "" || strings.Contains(u.Host, "+") ||
		u.Scheme+"://"+u.Host != text {
		return "", wrong
	}
	if _, err := strconv.ParseUint(u.Port(), 10, 16); err != nil && u.Host != u.Hostname() && !strings.HasSuffix(u.Host, "]") {
		return "", wrong
	}
	return OriginOf(u), nil
}

// OriginOf returns the origin of an address in the form that origins are stored in.
func OriginOf(u *url.URL) string {
	scheme := strings.ToLower(u.Scheme)
	standard := map[string]string{"https": ":443", "http": ":80"}[scheme]
	return scheme + "://" + strings.TrimSuffix(strings.ToLower(u.Host), standard)
}

func saveOrigins(tx *store.Tx, o *models.Organization) error {
	if err := tx.Exec("DELETE FROM organization_origins WHERE organization_id = ?", o.ID).Error; err != nil {
		return fmt.Errorf("save the origins of an organization: %w", err)
	}
	for _, origin := range o.AllowedOrigins {
		if err := tx.Exec("INSERT INTO organization_origins (organization_id, origin) VALUES (?, ?)", o.ID, origin).Error; err != nil {
			return fmt.Errorf("save the origins of an organization: %w", err)
		}
	}
	return nil
}

// Organization returns an organization that is not deleted.
func (c *Catalog) Organization(ctx context.Context, id string) (*models.Organization, error) {
	db := c.store.Read(ctx)
	return organization(db, db, id)
}

// organization finds one through q, and its origins through db.
func organization(db, q *gorm.DB, id string) (*models.Organization, error) {
	var o models.Organization
	err := q.Where("id = ? AND deleted_at IS NULL", id).Take(&o).Error
	if err := organizationFound(err); err != nil {
		return nil, err
	}
	list := []models.Organization{o}
	return &list[0], withOrigins(db, list)
}

func organizationFound(err error) error {
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return models.Errorf(models.CodeOrgMissing, "There is no such organization.")
	}
	if err != nil {
		return fmt.Errorf("read organization: %w", err)
	}
	return nil
}

// Organizations lists the organizations or, if only is not empty, the one with that id.
func (c *Catalog) Organizations(ctx context.Context, only string, page store.Page) ([]models.Organization, error) {
	db := c.store.Read(ctx)
	q := db.Where("deleted_at IS NULL")
	if only != "" {
		q = q.Where("id = ?", only)
	}
	var list []models.Organization
	if err := page.Apply(q).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list organizations: %w", err)
	}
	return list, withOrigins(db, list)
}

func withOrigins(db *gorm.DB, list []models.Organization) error {
	ids := make([]string, len(list))
	at := make(map[string]*models.Organization, len(list))
	for i := range list {
		ids[i], at[list[i].ID] = list[i].ID, &list[i]
		list[i].AllowedOrigins = []string{}
	}
	var rows []struct{ OrganizationID, Origin string }
	err := db.Table("organization_origins").Select("organization_id, origin").Where("organization_id IN ?", ids).
		Order("organization_id, origin").Find(&rows).Error
	if err != nil {
		return fmt.Errorf("read the origins of organizations: %w", err)
	}
	for _, row := range rows {
		o := at[row.OrganizationID]
		o.AllowedOrigins = append(o.AllowedOrigins, row.Origin)
	}
	return nil
}

// OriginAllowed reports whether any organization allows a web origin.
func (c *Catalog) OriginAllowed(ctx context.Context, origin string) (bool, error) {
	var listed int64
	err := c.store.Read(ctx).Raw(`SELECT COUNT(*) FROM organization_origins p JOIN organizations o ON o.id = p.organization_id
		WHERE p.origin = ? AND o.deleted_at IS NULL`, origin).Scan(&listed).Error
	if err != nil {
		return false, fmt.Errorf("look for an origin: %w", err)
	}
	return listed > 0, nil
}
