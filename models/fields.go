package models

import (
	"bytes"
	"encoding/json"
)

// Fields are fields that a clinic makes up, kept and given back as they came.
// Their numbers stay as they were written: a national id has more digits than a
// float64 can hold.
type Fields map[string]any

// UnmarshalJSON implements json.Unmarshaler. Fields that are there already stay,
// unless they are given again.
func (f *Fields) UnmarshalJSON(data []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	fields := map[string]any(*f)
	if err := decoder.Decode(&fields); err != nil {
		return err
	}
	*f = fields
	return nil
}
