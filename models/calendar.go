package models

import "time"

// TimeRules say when a resource, or an organization's resources without rules of
// their own, can be booked.
type TimeRules struct {
	// DepthOfDays is how many days ahead can be booked: 0 is today only.
	DepthOfDays int `json:"depthOfDays"`
	// ScheduleAfterHoursFromNow is how soon a visit may begin: -1 from tomorrow, 0 at
	// once, n after n hours.
	ScheduleAfterHoursFromNow int        `json:"scheduleAfterHoursFromNow"`
	Rules                     []TimeRule `json:"rules"`
}

// Bounds of TimeRules.
const (
	MaxDepthOfDays  = 5 * 365
	MaxNoticeHours  = 24 * 365
	MaxTimeRules    = 500
	MaxSlotsOfARule = 48
	MaxOffRules     = 1000
)

// TimeRule opens a resource on certain days.
type TimeRule struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	// Weekdays are the days of the week, 0 is Sunday. Empty, the rule holds on every
	// day of its dates or its recurrence.
	Weekdays []int `json:"weekdays,omitempty"`
	// Slots are the hours of such a day.
	Slots []TimeSlot `json:"slots"`
	// From and To are the first and the last day, such as 2026-01-31; either may be
	// empty. A rule with dates replaces the rules without on its days.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// RRule is a recurrence of RFC 5545, such as FREQ=MONTHLY;BYDAY=1MO. It begins on
	// From.
	RRule string `json:"rrule,omitempty"`
	// Types are the booking types the rule is for. Empty: all.
	Types []string `json:"types,omitempty"`
}

// TimeSlot is a stretch of a day in military times. One whose To is not after its From
// ends on the next day.
type TimeSlot struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// OffRule closes a resource, from a time of one day to a time of the same or a later
// day.
type OffRule struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	From string `json:"from"`         // the first day
	To   string `json:"to,omitempty"` // the last day; default From
	// FromTime and ToTime are military times. Default: the whole days.
	FromTime *int `json:"fromTime,omitempty"`
	ToTime   *int `json:"toTime,omitempty"`
	// RRule repeats the rule, beginning on From.
	RRule string `json:"rrule,omitempty"`
}

// DefaultTimeRules are those of a new organization: 09:00 to 17:00 every day, a year
// ahead.
func DefaultTimeRules() TimeRules {
	return TimeRules{DepthOfDays: 365, Rules: []TimeRule{{
		ID: "default", Weekdays: []int{0, 1, 2, 3, 4, 5, 6}, Slots: []TimeSlot{{From: 900, To: 1700}},
	}}}
}

// Calendar is the rules of one resource or, with an empty ResourceID, those of the
// organization, which hold for resources without rules of their own.
type Calendar struct {
	OrganizationID string     `gorm:"primaryKey"`
	ResourceID     string     `gorm:"primaryKey"`
	TimeRules      *TimeRules `gorm:"serializer:json"` // nil: none of its own
	OffRules       []OffRule  `gorm:"serializer:json"`
	// Version grows with every change.
	Version   int64
	UpdatedAt time.Time
}
