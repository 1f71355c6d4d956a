package models

import (
	"crypto/sha256"
	"encoding/hex"
)

// HashSecret is the form in which a random secret is kept: keys and tokens of
// 128 bits or more, which need no salt. Never use it for what people choose.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}
