package models

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// HashSecret is the form in which a random secret is kept: keys and tokens of 128 bits
// or more, which need no salt. Never use it for secrets that people choose.
func HashSecret(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Sealer encrypts secrets that have to be read again, with AES-256-GCM. Each purpose
// has its own key.
type Sealer struct{ aead cipher.AEAD }

// NewSealer derives the key for a purpose from the service's secret.
func NewSealer(secret []byte, purpose string) (*Sealer, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "seal "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive a sealing key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make a sealing key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make a sealing key: %w", err)
	}
	return &Sealer{aead}, nil
}

// Seal encrypts a text. Each call returns a different result.
func (s *Sealer) Seal(plain string) string {
	return base64.RawStdEncoding.EncodeToString(s.aead.Seal(nil, nil, []byte(plain), nil)) //nolint:gosec // the cipher draws a nonce for each text itself
}

// errSealed is returned for a text that was sealed with another key, or modified.
var errSealed = errors.New("a sealed text cannot be opened: was NOWSERVING_SECRET_KEY changed?")

// Open decrypts what Seal made.
func (s *Sealer) Open(sealed string) (string, error) {
	raw, err := base64.RawStdEncoding.DecodeString(sealed)
	if err != nil {
		return "", errSealed
	}
	plain, err := s.aead.Open(nil, nil, raw, nil)
	if err != nil {
		return "", errSealed
	}
	return string(plain), nil
}

// Signer makes tags that prove that this service wrote a text. Each purpose has its own
// key.
type Signer struct{ key []byte }

// NewSigner derives the key for a purpose from the service's secret.
func NewSigner(secret []byte, purpose string) (*Signer, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "sign "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive a signing key: %w", err)
	}
	return &Signer{key}, nil
}

// tagBytes is the length of a tag. To guess one takes 128 bits.
const tagBytes = 16

// Tag returns the tag of a text, which is safe in a URL. It is the same each time.
func (s *Signer) Tag(text string) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:tagBytes])
}

// Signed reports whether a tag is that of a text.
func (s *Signer) Signed(text, tag string) bool { return hmac.Equal([]byte(tag), []byte(s.Tag(text))) }

// Purposes of texts that one package signs or seals, and another checks or opens.
const (
	// SignCalendarLinks is for the ids of bookings, in links to their calendar files.
	SignCalendarLinks = "calendar links"
	// SealMessages is for Message.Sealed.
	SealMessages = "messages"
	// SealDevices is for the registration tokens of devices.
	SealDevices = "devices"
	// SealOnSite is for the on-site codes of organizations.
	SealOnSite = "on-site codes"
	// SealPages is for page tokens.
	SealPages = "page tokens"
	// SealAnswers is for the answers kept in the table idempotency_keys.
	SealAnswers = "answers"
)
