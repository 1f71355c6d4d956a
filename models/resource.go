package models

import "time"

// Resource is a doctor, a room or a desk that serves bookings.
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
	// Paused stops call-next. Waiting bookings keep waiting.
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
