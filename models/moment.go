package models

import (
	"database/sql/driver"
	"fmt"
	"time"
)

// MomentFormat is how every answer and publication writes a moment: RFC 3339 in
// UTC, with milliseconds.
const MomentFormat = "2006-01-02T15:04:05.000Z"

// Moment is a time that is encoded in MomentFormat.
type Moment struct{ time.Time }

// At returns t as a Moment.
func At(t time.Time) Moment { return Moment{t} }

// AtOrNil returns t as a Moment, or nil.
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
