package message

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

// Settings are the wordings of an organization's messages, and the reminders that it
// sends as messages.
type Settings struct {
	Templates map[string]TemplateSettings
	// Reminders are the methods of each reminder, the preferred first: the first
	// one goes out that can be sent and that the customer has an address for.
	Reminders map[models.Reminder][]string
}

// TemplateSettings is a message and its wording in force.
type TemplateSettings struct {
	// Gaps may be used in the wording, as {{name}}.
	Gaps []string
	// Texts and Own are by language. Own are the organization's own wordings.
	Texts, Own map[string]Wording
	// Approved are the templates of WhatsApp, by language.
	Approved map[string]Approved
}

// Change changes the settings. Absent entries stay unchanged.
type Change struct {
	// Wordings by template and language. An empty subject or text restores the default.
	Wordings map[string]map[string]Wording
	// Approved by template and language; one without a name is deleted.
	Approved map[string]map[string]Approved
	// Reminders are methods as in Settings. An empty list sends none; nil restores the
	// default.
	Reminders map[models.Reminder][]string
}

// messageWording is a row of message_wordings.
type messageWording struct {
	OrganizationID string
	Template       string
	Lang           string
	Subject        string
	Text           string
	UpdatedAt      time.Time
}

// messageReminder is a row of message_reminders.
type messageReminder struct {
	OrganizationID string
	Reminder       models.Reminder
	Methods        []string `gorm:"serializer:json"`
	UpdatedAt      time.Time
}

// languages are those a wording has.
var languages = []string{"en", "ar"}

// Settings returns the settings of an organization.
func (p *Messages) Settings(ctx context.Context, organizationID string) (Settings, error) {
	return messageSettings(p.Store.Read(ctx), organizationID)
}

func messageSettings(db *gorm.DB, organizationID string) (Settings, error) {
	var rows []messageWording
	if err := db.Where("organization_id = ?", organizationID).Find(&rows).Error; err != nil {
		return Settings{}, fmt.Errorf("read wordings: %w", err)
	}
	chosen, err := reminderMethods(db, organizationID)
	if err != nil {
		return Settings{}, err
	}
	templatesOf, err := readApproved(db, organizationID)
	if err != nil {
		return Settings{}, err
	}
	m := Settings{Templates: map[string]TemplateSettings{}, Reminders: map[models.Reminder][]string{}}
	for name, t := range templates {
		m.Templates[name] = TemplateSettings{Gaps: t.known(), Texts: map[string]Wording{"en": t.en, "ar": t.ar}, Own: map[string]Wording{}, Approved: templatesOf[name]}
	}
	for _, row := range rows {
		own := Wording{row.Subject, row.Text}
		if t, ok := m.Templates[row.Template]; ok && own != (Wording{}) {
			t.Own[row.Lang] = own
			t.Texts[row.Lang] = own.or(t.Texts[row.Lang])
		}
	}
	for _, reminder := range models.Reminders {
		m.Reminders[reminder] = append([]string{}, chosen[reminder]...)
	}
	return m, nil
}

// reminderMethods are by which methods an organization sends each reminder.
func reminderMethods(db *gorm.DB, organizationID string) (map[models.Reminder][]string, error) {
	var rows []messageReminder
	if err := db.Where("organization_id = ?", organizationID).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("read the choice of reminders: %w", err)
	}
	chosen := map[models.Reminder][]string{}
	for reminder, preferred := range remindersByDefault {
		chosen[reminder] = preferred
	}
	for _, row := range rows {
		chosen[row.Reminder] = row.Methods
	}
	return chosen, nil
}

// SetSettings changes the settings of an organization and returns them all.
func (p *Messages) SetSettings(ctx context.Context, organizationID string, c Change) (m Settings, err error) {
	wordings, templatesOf, err := c.rows(organizationID)
	if err != nil {
		return m, err
	}
	for _, reminder := range sorted(c.Reminders) {
		field := "reminders." + string(reminder)
		if !slices.Contains(models.Reminders, reminder) {
			return m, models.Invalid(field, "There is no such reminder.")
		}
		list := c.Reminders[reminder]
		for i, method := range list {
			if !slices.Contains(methods, method) || slices.Contains(list[:i], method) {
				return m, models.Invalid(field, "Its methods are each at most once of %s.", strings.Join(methods, ", "))
			}
		}
	}
	err = p.Store.Tx(ctx, func(tx *store.Tx) error {
		for _, w := range wordings {
			w.UpdatedAt = tx.Now
			if err := tx.Clauses(clause.OnConflict{UpdateAll: true, Columns: columns("organization_id", "template", "lang")}).Create(&w).Error; err != nil {
				return err
			}
		}
		for _, row := range templatesOf {
			if err := saveApproved(tx, row); err != nil {
				return err
			}
		}
		for _, reminder := range sorted(c.Reminders) {
			row := messageReminder{organizationID, reminder, c.Reminders[reminder], tx.Now}
			var err error
			if row.Methods == nil {
				err = tx.Where("organization_id = ? AND reminder = ?", organizationID, reminder).Delete(&messageReminder{}).Error
			} else {
				err = tx.Clauses(clause.OnConflict{UpdateAll: true, Columns: columns("organization_id", "reminder")}).Create(&row).Error
			}
			if err != nil {
				return err
			}
		}
		if err := tx.Audit(organizationID, "setMessages", "organization", organizationID); err != nil {
			return err
		}
		var err error
		if m, err = messageSettings(tx.DB, organizationID); err != nil {
			return err
		}
		return p.checkReminders(c.Reminders, m)
	})
	if err != nil {
		return m, fmt.Errorf("store the settings of messages: %w", err)
	}
	return m, nil
}

// rows are the wordings and templates of a change, once they are checked.
func (c *Change) rows(organizationID string) (wordings []messageWording, approved []whatsAppTemplate, err error) {
	known := func(name, lang string) (*template, string, error) {
		t, ok := templates[name]
		if !ok {
			return nil, "", models.Invalid("templates."+name, "There is no such message; there are %s.", strings.Join(sorted(templates), ", "))
		}
		field := "templates." + name + "." + lang
		if !slices.Contains(languages, lang) {
			return nil, "", models.Invalid(field, "A language is en or ar.")
		}
		return &t, field, nil
	}
	for _, name := range sorted(c.Wordings) {
		for _, lang := range sorted(c.Wordings[name]) {
			w := c.Wordings[name][lang]
			t, field, err := known(name, lang)
			if err == nil {
				err = t.check(field, w)
			}
			if err != nil {
				return nil, nil, err
			}
			wordings = append(wordings, messageWording{OrganizationID: organizationID, Template: name, Lang: lang, Subject: w.Subject, Text: w.Text})
		}
	}
	for _, name := range sorted(c.Approved) {
		for _, lang := range sorted(c.Approved[name]) {
			a := c.Approved[name][lang]
			t, field, err := known(name, lang)
			if err == nil {
				err = t.checkApproved(field+".whatsapp", a)
			}
			if err != nil {
				return nil, nil, err
			}
			approved = append(approved, whatsAppTemplate{OrganizationID: organizationID, Template: name, Lang: lang, ContentSID: a.ContentSID, Variables: a.Variables})
		}
	}
	return wordings, approved, nil
}

func columns(names ...string) []clause.Column {
	list := make([]clause.Column, len(names))
	for i, name := range names {
		list[i].Name = name
	}
	return list
}

// sorted are the keys of a map in their order, so that the same mistakes are
// told in the same order.
func sorted[K ~string, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}

// Status is the outcome of an attempt to send a message.
type Status string

// The states of an attempt.
const (
	MessageSent    Status = "sent"    // the carrier took it
	MessageRetried Status = "retried" // it did not; another attempt follows
	MessageFailed  Status = "failed"  // it did not, and never will
	MessageDropped Status = "dropped" // it was of no use any more
)

// Attempt is a line of the log of messages: one attempt to send one,
// without its text and without an address.
type Attempt struct {
	ID             string `gorm:"primaryKey"`
	OrganizationID string
	MessageID      string // the same for each attempt
	BookingID      string // empty for a message about no booking
	Template       string
	Method         string
	Attempt        int // 1 for the first
	Status         Status
	// ProviderID is the carrier's name for the message: the SID at Twilio, the
	// Message-ID of an e-mail.
	ProviderID string
	// Error is a short code, empty where the message was sent.
	Error      string
	DurationMS int64
	// Delivery is what the carrier reported after it accepted the message, with its
	// error code and the time.
	Delivery      Receipt
	DeliveryError string
	DeliveryAt    *time.Time
	CreatedAt     time.Time
}

// TableName implements schema.Tabler.
func (Attempt) TableName() string { return "message_attempts" }

// Filter narrows the log of messages. Empty fields narrow nothing.
type Filter struct {
	BookingID, MessageID, Template, Method string
	Status                                 Status
	Delivery                               Receipt
	From, To                               time.Time
}

// List lists attempts, the newest first, and one more than the page's limit if there
// are more.
func (p *Messages) List(ctx context.Context, organizationID string, f Filter, page store.Page) ([]Attempt, error) {
	q := p.Store.Read(ctx).Where("organization_id = ?", organizationID)
	for _, part := range []struct{ column, value string }{
		{"booking_id", f.BookingID}, {"message_id", f.MessageID}, {"template", f.Template}, {"method", f.Method}, {"status", string(f.Status)},
		{"delivery", string(f.Delivery)},
	} {
		if part.value != "" {
			q = q.Where(part.column+" = ?", part.value)
		}
	}
	q = store.CreatedBetween(q, f.From, f.To)
	var list []Attempt
	if err := page.ApplyNewestFirst(q).Find(&list).Error; err != nil {
		return nil, fmt.Errorf("list attempts at messages: %w", err)
	}
	return list, nil
}

// Tidy deletes the log from before a moment.
func (p *Messages) Tidy(ctx context.Context, before time.Time) error {
	return p.Store.DeleteInBatches(ctx, "message_attempts", "id", "created_at < ?", before)
}
