package models

import (
	"encoding/json"
	"fmt"
	"time"
)

// Message is a job: a text to one person, by SMS, WhatsApp or e-mail.
type Message struct {
	OrganizationID string `json:"organizationId"`
	// Template names the text; see notify for which there are.
	Template string `json:"template"`
	// Method is sms, whatsapp or email.
	Method string `json:"method"`
	Lang   string `json:"lang"`
	// ToMember says that it is for members of the organization only: one to
	// another address is dropped.
	ToMember bool `json:"toMember,omitempty"`
	// BookingID is empty for a message about no booking.
	BookingID string `json:"bookingId,omitempty"`
	// Until is the moment after which the message is of no use and is not sent
	// any more; zero: a day after it was written.
	Until time.Time `json:"until,omitzero"`
	// Sealed is a Letter as JSON, sealed for SealMessages: an address and what
	// fills the gaps of the template are nothing for a table of jobs.
	Sealed string `json:"sealed"`
}

// TemplateOTP is the template of a one-time code; its gaps are code and minutes.
const TemplateOTP = "otp"

// Kind names the worker that sends it.
func (Message) Kind() string { return "message" }

// Queue names the workers it shares.
func (Message) Queue() string { return "messages" }

// Letter is the part of a Message that only its sender and receiver know.
type Letter struct {
	To     string            `json:"to"` // a phone number in E.164, or an e-mail address
	Values map[string]string `json:"values"`
}

// Seal makes what a Message holds of the letter.
func (l Letter) Seal(s *Sealer) (string, error) {
	plain, err := json.Marshal(l)
	if err != nil {
		return "", fmt.Errorf("seal a letter: %w", err)
	}
	return s.Seal(string(plain)), nil
}

// OpenLetter reads what a Message holds.
func OpenLetter(s *Sealer, sealed string) (l Letter, err error) {
	plain, err := s.Open(sealed)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal([]byte(plain), &l); err != nil {
		return l, fmt.Errorf("open a letter: %w", err)
	}
	return l, nil
}
