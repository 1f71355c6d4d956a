package models

import (
	"encoding/json"
	"fmt"
	"time"
)

// Message is a job: a text to one person, by SMS, WhatsApp or e-mail.
type Message struct {
	OrganizationID string `json:"organizationId"`
	// Template names the text. The templates are in notify/message.
	Template string `json:"template"`
	// Method is sms, whatsapp or email.
	Method string `json:"method"`
	Lang   string `json:"lang"`
	// ToMember reports that the message is for members of the organization only. A
	// message to another address is dropped.
	ToMember bool `json:"toMember,omitempty"`
	// BookingID is empty for a message about no booking.
	BookingID string `json:"bookingId,omitempty"`
	// Until is the moment after which the message is not sent any more. Zero: a day
	// after it was written.
	Until time.Time `json:"until,omitzero"`
	// Sealed is a MessageContent as JSON, sealed for SealMessages, so that the table
	// of jobs holds no address and no code.
	Sealed string `json:"sealed"`
}

// TemplateOTP is the template of a one-time code. Its values are code and minutes.
const TemplateOTP = "otp"

// Kind names the worker that sends it.
func (Message) Kind() string { return "message" }

// Queue names the workers it shares.
func (Message) Queue() string { return "messages" }

// MessageContent is the part of a Message that is encrypted: its address, and the values
// for its template.
type MessageContent struct {
	To     string            `json:"to"` // a phone number in E.164, or an e-mail address
	Values map[string]string `json:"values"`
}

// Seal returns the content as Message.Sealed.
func (c MessageContent) Seal(s *Sealer) (string, error) {
	plain, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("seal a message: %w", err)
	}
	return s.Seal(string(plain)), nil
}

// OpenMessageContent reads Message.Sealed.
func OpenMessageContent(s *Sealer, sealed string) (c MessageContent, err error) {
	plain, err := s.Open(sealed)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal([]byte(plain), &c); err != nil {
		return c, fmt.Errorf("open a message: %w", err)
	}
	return c, nil
}
