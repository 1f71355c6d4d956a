package models

import "time"

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
