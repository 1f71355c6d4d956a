package models

import (
	"strconv"
	"strings"
	"time"
)

// Website is what an organization's booking page shows and how it books.
type Website struct {
	Name                         string        `json:"name"`
	Timezone                     string        `json:"timezone" doc:"IANA name."`
	On                           bool          `json:"on"`
	Logo                         Fields        `json:"logo" nullable:"false"`
	LogoFavIcon                  Fields        `json:"logoFavIcon" nullable:"false"`
	DisplayName                  string        `json:"displayName"`
	Description                  string        `json:"description"`
	Terms                        string        `json:"terms"`
	BookingSuccessMessage        string        `json:"bookingSuccessMessage"`
	BookingPolicy                BookingPolicy `json:"bookingPolicy,omitempty" enum:"specify,leastFirst,specifyAndLeastFirst"`
	BookingTimePolicy            TimePolicy    `json:"bookingTimePolicy,omitempty" enum:"displayAll,suggest,first"`
	SuggestedTimes               int           `json:"suggestedTimes"`
	BookingTimeSplitting         TimeSplitting `json:"bookingTimeSplitting,omitempty" enum:"optimize,oclock,oclockAndHalf,20,15,10,fixed"`
	FixedTimes                   []int         `json:"fixedTimes" nullable:"false" doc:"Minutes from midnight."`
	BookingTimeSplittingOptimize bool          `json:"bookingTimeSplittingOptimize"`
	BookingTimeShowMidnight      bool          `json:"bookingTimeShowMidnight"`
	SelectTypeFirst              bool          `json:"selectTypeFirst"`
	SelectResourceCategory       bool          `json:"selectResourceCategory"`
	HideResource                 bool          `json:"hideResource"`
	Theme                        Fields        `json:"theme" nullable:"false"`
	CallSupport                  string        `json:"callSupport"`
	WhatsApp                     string        `json:"whatsapp"`
	EmailSupport                 string        `json:"emailSupport"`
	Twitter                      string        `json:"twitter"`
	Instagram                    string        `json:"instagram"`
	Facebook                     string        `json:"facebook"`
	TikTok                       string        `json:"tiktok"`
	Snapchat                     string        `json:"snapchat"`
	Map                          Fields        `json:"map" nullable:"false"`
	Maroof                       string        `json:"maroof"`
	SaudiBusinessCenter          string        `json:"saudiBusinessCenter"`
}

// BookingPolicy is how an appointment gets its resource.
type BookingPolicy string

// The policies. Where the customer names no resource, PolicySpecify takes the first free
// one and the others take the one with the fewest appointments on that day.
const (
	PolicySpecify              BookingPolicy = "specify"
	PolicyLeastFirst           BookingPolicy = "leastFirst"
	PolicySpecifyAndLeastFirst BookingPolicy = "specifyAndLeastFirst"
)

// TimePolicy is which of the free times of a day are offered.
type TimePolicy string

// The policies.
const (
	TimesAll       TimePolicy = "displayAll"
	TimesSuggested TimePolicy = "suggest" // SuggestedTimes of each day
	TimesFirst     TimePolicy = "first"   // the first of each day
)

// TimeSplitting is at which times of a day a visit may begin.
type TimeSplitting string

// The times.
const (
	SplitOptimize      TimeSplitting = "optimize" // those that leave no gap
	SplitOclock        TimeSplitting = "oclock"
	SplitOclockAndHalf TimeSplitting = "oclockAndHalf"
	Split20            TimeSplitting = "20"
	Split15            TimeSplitting = "15"
	Split10            TimeSplitting = "10"
	SplitFixed         TimeSplitting = "fixed" // FixedTimes
)

// DefaultSuggestedTimes is how many times of a day a new website suggests.
const DefaultSuggestedTimes = 3

// DefaultWebsite is the website of an organization that has stored none.
func DefaultWebsite(o *Organization) Website {
	return Website{
		Name: o.Name, DisplayName: o.Name, Timezone: o.Timezone, On: true,
		BookingPolicy: PolicySpecifyAndLeastFirst, BookingTimePolicy: TimesAll, SuggestedTimes: DefaultSuggestedTimes,
		BookingTimeSplitting: SplitOclock, BookingTimeShowMidnight: true,
	}
}

// Chooses reports whether the policy chooses the resource with the fewest appointments
// where none is named.
func (p BookingPolicy) Chooses() bool { return p != PolicySpecify }

// TimeOptions returns the times of a day that the website names.
func (w *Website) TimeOptions() TimeOptions {
	yes, oclock := true, true
	o := TimeOptions{Oclock: &oclock, AfterMidnight: &w.BookingTimeShowMidnight}
	switch w.BookingTimeSplitting {
	case SplitOclock:
	case SplitOclockAndHalf:
		o.HalfHour = &yes
	case Split20:
		o.ThirdHour = &yes
	case Split15:
		o.HalfHour, o.QuarterHour = &yes, &yes
	case Split10:
		o.HalfHour, o.ThirdHour, o.SixthHour = &yes, &yes, &yes
	case SplitFixed:
		oclock = false
		times := make([]string, len(w.FixedTimes))
		for i, minute := range w.FixedTimes {
			times[i] = strconv.Itoa(minute/60*100 + minute%60)
		}
		fixed := strings.Join(times, ",")
		o.FixedTimes = &fixed
	case SplitOptimize:
		oclock = false
		o.InBetween = &yes
	}
	if w.BookingTimeSplittingOptimize {
		o.InBetween = &yes
	}
	return o
}

// Offered returns how many of a day's free times the website offers: all if it is 0.
func (w *Website) Offered() int {
	switch w.BookingTimePolicy {
	case TimesFirst:
		return 1
	case TimesSuggested:
		return w.SuggestedTimes
	case TimesAll:
	}
	return 0
}

// WebsiteVersion is one of the versions that an organization has of its website.
type WebsiteVersion struct {
	OrganizationID string      `gorm:"primaryKey"`
	Version        VersionName `gorm:"primaryKey"`
	Data           Website     `gorm:"serializer:json"`
	UpdatedAt      time.Time
}

// TableName implements gorm's Tabler.
func (WebsiteVersion) TableName() string { return "websites" }

// VersionName is the name of a version of a website.
type VersionName string

// The versions.
const (
	VersionDefault VersionName = "default" // what visitors see and bookings follow
	VersionDraft   VersionName = "draft"   // what is prepared
)
