package models

import (
	"database/sql/driver"
	"fmt"
	"time"
)

// MomentFormat is how every answer and publication writes a moment: RFC 3339 in
// UTC, with milliseconds.
const MomentFormat = "2006-01-02T15:04:05.000Z"

// Moment is a time as it is written on the wire.
type Moment struct{ time.Time }

// At is a moment.
func At(t time.Time) Moment { return Moment{t} }

// AtOrNil is a moment, or none.
func AtOrNil(t *time.Time) *Moment {
	if t == nil {
		return nil
	}
	return &Moment{*t}
}

// MarshalJSON implements json.Marshaler.
func (m Moment) MarshalJSON() ([]byte, error) {
	return []byte(`"` + m.UTC().Format(MomentFormat) + `"`), nil
}

// Scan implements sql.Scanner.
func (m *Moment) Scan(value any) error {
	t, ok := value.(time.Time)
	if !ok {
		return fmt.Errorf("a moment is read from a time, not from %T", value)
	}
	m.Time = t
	return nil
}

// Value implements driver.Valuer.
func (m Moment) Value() (driver.Value, error) { return m.Time, nil }
