package models

import (
	"bytes"
	"encoding/json"
)

// Fields are fields that a clinic defines. They are stored and returned unchanged, also
// their numbers: a national id has more digits than a float64 can hold.
type Fields map[string]any

// UnmarshalJSON implements json.Unmarshaler. Present fields stay, unless data has them
// too.
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
