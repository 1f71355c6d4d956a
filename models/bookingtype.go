package models

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
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
	// ComeNowAtPosition and ComeNowAtMinutes are the position and the likely wait at
	// which the patient's phone gets the push "come now", once. 0: never.
	ComeNowAtPosition int
	ComeNowAtMinutes  int
	// QueueTimeoutMinutes is the assignment timeout of bookings that set none.
	QueueTimeoutMinutes int
	// Details are fields of the API document that are stored and returned unchanged:
	// buffers, old price, deposit, schedule, time options, photos.
	Details   Fields `gorm:"serializer:json"`
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt *time.Time
}

// MaxLeaveMinutes bounds a buffer.
const MaxLeaveMinutes = 24 * 60

// Leave returns the buffers before and after a visit, in minutes.
func (t *BookingType) Leave() (before, after int) {
	minutes := func(name string) int {
		number, _ := t.Details[name].(json.Number)
		n, err := number.Float64()
		if err != nil {
			return 0
		}
		return int(math.Ceil(min(max(n, 0), MaxLeaveMinutes)))
	}
	return minutes("leaveMinutesBefore"), minutes("leaveMinutesAfter")
}

// Schedule returns the time rules that narrow when the type can be booked, or nil if
// there are none. A schedule without rules narrows the days and the notice only.
func (t *BookingType) Schedule() (*TimeRules, error) {
	given, _ := t.Details["schedule"].(map[string]any)
	if given["rules"] == nil && given["depthOfDays"] == nil && given["scheduleAfterHoursFromNow"] == nil {
		return nil, nil //nolint:nilnil // no rules are no error
	}
	text, err := json.Marshal(given)
	if err != nil {
		return nil, fmt.Errorf("read the schedule of booking type %s: %w", t.ID, err)
	}
	rules := TimeRules{DepthOfDays: MaxDepthOfDays}
	if err := json.Unmarshal(text, &rules); err != nil {
		return nil, fmt.Errorf("read the schedule of booking type %s: %w", t.ID, err)
	}
	return &rules, nil
}

// TimeOptions returns the times of a day that the type names.
func (t *BookingType) TimeOptions() (TimeOptions, error) {
	var options TimeOptions
	given, err := json.Marshal(t.Details["timeOptions"])
	if err == nil {
		err = json.Unmarshal(given, &options)
	}
	if err != nil {
		return options, fmt.Errorf("read the time options of booking type %s: %w", t.ID, err)
	}
	return options, nil
}
