package models

import "time"

// Translation holds a text in the languages the product speaks.
type Translation struct {
	En string `json:"en,omitempty"`
	Ar string `json:"ar,omitempty"`
}

// In returns the text in a language, or fallback where there is none.
func (t Translation) In(lang, fallback string) string {
	text := t.En
	if lang == "ar" {
		text = t.Ar
	}
	if text == "" {
		return fallback
	}
	return text
}

// Organization is a tenant; every row, key and channel belongs to one.
type Organization struct {
	ID                   string `gorm:"primaryKey"`
	Name                 string
	Timezone             string // IANA name; decides local days and so ticket numbers
	BusinessTypeID       string
	BusinessCustomConfig Fields `gorm:"serializer:json"`
	// OTPDailyLimit is how many messages with one-time codes go to its customers
	// in a day; nil: as the configuration says.
	OTPDailyLimit *int `gorm:"column:otp_daily_limit"`
	// ClinicAddresses are the addresses and networks (CIDR) that the clinic's
	// patients share; requests without a credential have a larger budget there.
	ClinicAddresses []string `gorm:"serializer:json"`
	// ShortName works wherever the id does; nil: there is none.
	ShortName *string
	// Country, of ISO 3166-1, is whose phone numbers need no country code; empty:
	// that of the time zone.
	Country string
	// GuestJoin says whether people join without signing in.
	GuestJoin GuestJoin
	// OnSiteCodeSealed is the sealed code that guests type on site.
	OnSiteCodeSealed string
	CreatedAt        time.Time
	DeletedAt        *time.Time

	// AllowedOrigins are the web origins whose pages may call the API for the
	// organization and show its widgets: scheme://host[:port] in lower case.
	AllowedOrigins []string `gorm:"-"`
}

// GuestJoin is how people join a queue without signing in.
type GuestJoin string

// The ways.
const (
	GuestsOff       GuestJoin = "off"       // not at all
	GuestsTurnstile GuestJoin = "turnstile" // with a proof of Cloudflare Turnstile that a person asks
	GuestsOnSite    GuestJoin = "onSite"    // with the code that the clinic shows
)

// BookingType is a service a customer can ask for.
type BookingType struct {
	ID                      string `gorm:"primaryKey"`
	OrganizationID          string
	Name                    string
	NameTranslations        Translation `gorm:"serializer:json"`
	Description             string
	DescriptionTranslations Translation `gorm:"serializer:json"`
	Prefix                  string      // of its tickets, one to three capital letters, unique in the organization
	Minutes                 int
	Price                   string   // decimal with two digits, empty when free
	PaymentMethods          []string `gorm:"serializer:json"`
	Category                string
	Color                   string
	On                      bool `gorm:"column:is_on"`
	AutoConfirm             bool
	BookFromWebsite         bool
	// ComeNowAtPosition and ComeNowAtMinutes (of likely wait) are from where on
	// a waiting patient's phone asks them to come, once; 0: never.
	ComeNowAtPosition int
	ComeNowAtMinutes  int
	// QueueTimeoutMinutes is how long a queued booking waits where it asks for no
	// timeout of its own; within the bounds of assignment timeouts.
	QueueTimeoutMinutes int
	// Details are fields of the API document that are kept and given back as
	// they came: buffers, old price, deposit, schedule, time options, photos.
	Details   Fields `gorm:"serializer:json"`
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt *time.Time
}

// Resource is who or what serves: a doctor, a room, a desk.
type Resource struct {
	ID                      string `gorm:"primaryKey"`
	OrganizationID          string
	Name                    string
	NameTranslations        Translation `gorm:"serializer:json"`
	Description             string
	DescriptionTranslations Translation `gorm:"serializer:json"`
	Category                string
	On                      bool `gorm:"column:is_on"`
	Activated               bool
	BookFromWebsite         bool
	// Paused stops call-next; who waits keeps waiting.
	Paused     bool
	ProviderID *string // the member who acts for it
	Details    Fields  `gorm:"serializer:json"` // photo, photos, meta: kept as they came
	CreatedAt  time.Time
	UpdatedAt  time.Time
	DeletedAt  *time.Time

	TypeIDs []string `gorm:"-"`
}

// Active reports whether bookings match the resource.
func (r *Resource) Active() bool { return r.On && r.Activated && r.DeletedAt == nil }

// Customer is a patient.
type Customer struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	// Phone (E.164) and Email (lower case) are nobody else's: whoever proves one
	// by a code signs in as them.
	Phone *string
	Email *string
	// ClaimedPhone and ClaimedEmail are what the customer says of themself without
	// proof. They are shown and written to in the place of the others, but nobody
	// signs in with them, and others may say the same.
	ClaimedPhone *string
	ClaimedEmail *string
	FirstName    string
	LastName     string
	Note         string
	Lang         string // they signed in with, ar or en; empty: not yet
	Data         Fields `gorm:"serializer:json"`
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// MaxName bounds a first or last name, in bytes.
const MaxName = 200

// CheckNames refuses a first or last name that is too long. The prefix is that of
// the fields of the request.
func CheckNames(prefix, first, last string) error {
	switch {
	case len(first) > MaxName:
		return Invalid(prefix+"firstName", "A name has at most %d bytes.", MaxName)
	case len(last) > MaxName:
		return Invalid(prefix+"lastName", "A name has at most %d bytes.", MaxName)
	}
	return nil
}

// Contact is how the customer says they are reached; empty where not at all.
func (c *Customer) Contact() (phone, email string) {
	last := func(list ...*string) (found string) {
		for _, one := range list {
			if one != nil {
				found = *one
			}
		}
		return found
	}
	return last(c.Phone, c.ClaimedPhone), last(c.Email, c.ClaimedEmail)
}

// Role is what a member of an organization may do.
type Role string

// The roles of members.
const (
	RoleOwner        Role = "owner"
	RoleAdmin        Role = "admin"
	RoleProvider     Role = "provider"
	RoleReceptionist Role = "receptionist"
	RoleScreen       Role = "screen" // shows displays, and sees nothing else
)

// Valid reports whether r is a role.
func (r Role) Valid() bool {
	switch r {
	case RoleOwner, RoleAdmin, RoleProvider, RoleReceptionist, RoleScreen:
		return true
	}
	return false
}

// Member is a person who works for an organization.
type Member struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Role           Role
	Phone          *string
	Email          *string
	FirstName      string
	LastName       string
	CreatedAt      time.Time

	ResourceIDs []string `gorm:"-"` // those they act for
	// ViewConfirmed and ViewRequests are resources whose bookings a provider may
	// look at besides: those that have one, and those that wait for one.
	ViewConfirmed, ViewRequests []string `gorm:"-"`
}

// Display is a waiting-room screen. It shows ticket numbers, never names.
type Display struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Name           string
	ResourceIDs    []string `gorm:"serializer:json"` // empty: every resource
	TokenHash      string
	CreatedAt      time.Time
}
