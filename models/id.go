package models

import "github.com/rs/xid"

// NewID returns a new sortable identifier of 20 lowercase letters and digits.
func NewID() string { return xid.New().String() }
