package models

import "time"

// Display is a waiting-room screen. It shows ticket numbers, never names.
type Display struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	Name           string
	ResourceIDs    []string `gorm:"serializer:json"` // empty: every resource
	TokenHash      string
	CreatedAt      time.Time
}
