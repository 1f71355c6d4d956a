package models

import "time"

// CalendarFeed is the secret address at which calendar apps subscribe to the appointments
// of a resource.
type CalendarFeed struct {
	OrganizationID string `gorm:"primaryKey"`
	ResourceID     string `gorm:"primaryKey"`
	TokenHash      string
	CreatedAt      time.Time
}
