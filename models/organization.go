package models

import "time"

// Organization is a tenant; every row, key and channel belongs to one.
type Organization struct {
	ID                   string `gorm:"primaryKey"`
	Name                 string
	Timezone             string // IANA name; decides local days and so ticket numbers
	BusinessTypeID       string
	BusinessCustomConfig Fields `gorm:"serializer:json"`
	// OTPDailyLimit is how many messages with one-time codes the organization sends in
	// a day. Nil: as configured.
	OTPDailyLimit *int `gorm:"column:otp_daily_limit"`
	// ClinicAddresses are the addresses and networks (CIDR) that the clinic's
	// patients share; requests without a credential have a larger budget there.
	ClinicAddresses []string `gorm:"serializer:json"`
	// ShortName can be used in place of the id. Nil: none.
	ShortName *string
	// Country (ISO 3166-1) is the country whose phone numbers need no country code.
	// Empty: that of the time zone.
	Country string
	// GuestJoin is how people join without signing in.
	GuestJoin GuestJoin
	// OnSiteCodeSealed is the sealed code that guests type on site.
	OnSiteCodeSealed string
	CreatedAt        time.Time
	DeletedAt        *time.Time

	// AllowedOrigins are the web origins whose pages may call the API for the
	// organization and show its widgets: scheme://host[:port] in lower case.
	AllowedOrigins []string `gorm:"-"`
}

// GuestJoin is how guests may join a queue without signing in.
type GuestJoin string

// The ways.
const (
	GuestsOff       GuestJoin = "off"       // not at all
	GuestsTurnstile GuestJoin = "turnstile" // with a proof of Cloudflare Turnstile that a person asks
	GuestsOnSite    GuestJoin = "onSite"    // with the code that the clinic shows
)
