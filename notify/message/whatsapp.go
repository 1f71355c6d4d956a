package message

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"nowserving/booking/store"
	"nowserving/models"
)

// Approved is a template that WhatsApp has approved, as Twilio keeps it. WhatsApp
// accepts other messages within a day of a patient's last message only, and codes and
// reminders answer none.
type Approved struct {
	// ContentSID is the id of the template. Empty: none.
	ContentSID string
	// Variables are what the template's own gaps are filled with, by their names
	// ("1", "2"): texts with the gaps of the message, such as {{code}}.
	Variables map[string]string
}

// whatsAppTemplate is a row of whatsapp_templates.
type whatsAppTemplate struct {
	OrganizationID string
	Template       string
	Lang           string
	ContentSID     string            `gorm:"column:content_sid"`
	Variables      map[string]string `gorm:"serializer:json"`
	UpdatedAt      time.Time
}

// TableName is that of the rows.
func (whatsAppTemplate) TableName() string { return "whatsapp_templates" }

const (
	// maxVariables bounds the variables of a template, and maxVariable the text of
	// one, in characters.
	maxVariables = 20
	maxVariable  = 300
)

var (
	contentSID   = regexp.MustCompile(`^HX[0-9a-fA-F]{32}$`)
	variableName = regexp.MustCompile(`^\w{1,30}$`)
)

// checkApproved refuses a template that could not be filled.
func (t *template) checkApproved(field string, a Approved) error {
	if a.ContentSID == "" {
		if len(a.Variables) > 0 {
			return models.Invalid(field+".contentSid", "The variables need the name of a template.")
		}
		return nil
	}
	if !contentSID.MatchString(a.ContentSID) {
		return models.Invalid(field+".contentSid", "A template's name at Twilio is HX and 32 hexadecimal digits.")
	}
	if len(a.Variables) > maxVariables {
		return models.Invalid(field+".variables", "A template has at most %d variables.", maxVariables)
	}
	needed := t.needs == ""
	for _, name := range sorted(a.Variables) {
		text := a.Variables[name]
		where := field + ".variables." + name
		if !variableName.MatchString(name) {
			return models.Invalid(field+".variables", "A variable's name has 1 to 30 letters and digits.")
		}
		if text == "" || utf8.RuneCountInString(text) > maxVariable {
			return models.Invalid(where, "A variable has 1 to %d characters.", maxVariable)
		}
		if err := t.checkGaps(where, text); err != nil {
			return err
		}
		needed = needed || t.mentions(text)
	}
	if !needed {
		return models.Invalid(field+".variables", "A variable needs the gap {{%s}}.", t.needs)
	}
	return nil
}

// filled puts the values of a message into the variables. WhatsApp takes neither
// empty variables nor line breaks in them.
func (a *Approved) filled(values map[string]string) *Approved {
	full := &Approved{ContentSID: a.ContentSID, Variables: map[string]string{}}
	for name, text := range a.Variables {
		if full.Variables[name] = strings.Join(strings.Fields(fill(text, values)), " "); full.Variables[name] == "" {
			full.Variables[name] = "-"
		}
	}
	return full
}

// approved returns the template of a message in a language, or nil.
func approved(db *gorm.DB, organizationID, name, lang string) (*Approved, error) {
	var rows []whatsAppTemplate
	err := db.Where("organization_id = ? AND template = ? AND lang = ?", organizationID, name, languageOf(lang)).Limit(1).Find(&rows).Error
	if err != nil {
		return nil, fmt.Errorf("read a template of WhatsApp: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	return &Approved{rows[0].ContentSID, rows[0].Variables}, nil
}

// saveApproved stores a template, or deletes it when it has no name.
func saveApproved(tx *store.Tx, row whatsAppTemplate) error {
	if row.ContentSID == "" {
		return tx.Where("organization_id = ? AND template = ? AND lang = ?", row.OrganizationID, row.Template, row.Lang).Delete(&whatsAppTemplate{}).Error
	}
	row.UpdatedAt = tx.Now
	if row.Variables == nil {
		row.Variables = map[string]string{}
	}
	return tx.Clauses(clause.OnConflict{UpdateAll: true, Columns: columns("organization_id", "template", "lang")}).Create(&row).Error
}

// needsApproved reports whether a method takes approved templates only: WhatsApp,
// unless its messages go to the console.
func (p *Messages) needsApproved(method string) bool {
	return method == methodWhatsApp && p.configured[method]
}

// canWord reports whether a message can go out by a method, as far as that
// depends on the organization.
func (p *Messages) canWord(db *gorm.DB, organizationID, name, method, lang string) (bool, error) {
	if !p.needsApproved(method) {
		return true, nil
	}
	a, err := approved(db, organizationID, name, lang)
	return a != nil, err
}

// CanSendCode reports whether one-time codes of an organization can be sent by a
// method for which CanSend is true: WhatsApp needs a template.
func (p *Messages) CanSendCode(ctx context.Context, organizationID, method, lang string) (bool, error) {
	return p.canWord(p.Store.Read(ctx), organizationID, models.TemplateOTP, method, lang)
}

// checkReminders refuses reminders by WhatsApp for which there is no template.
func (p *Messages) checkReminders(chosen map[models.Reminder][]string, m Settings) error {
	for _, reminder := range sorted(chosen) {
		if !slices.ContainsFunc(chosen[reminder], p.needsApproved) {
			continue
		}
		for _, lang := range languages {
			if _, ok := m.Templates[string(reminder)].Approved[lang]; !ok {
				return models.Invalid("reminders."+string(reminder),
					"WhatsApp takes approved templates only: set templates.%s.%s.whatsapp, for en and for ar, before or in the same request.", reminder, lang)
			}
		}
	}
	return nil
}

// readApproved lists the templates of an organization by message and language.
func readApproved(db *gorm.DB, organizationID string) (map[string]map[string]Approved, error) {
	var rows []whatsAppTemplate
	if err := db.Where("organization_id = ?", organizationID).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("read the templates of WhatsApp: %w", err)
	}
	all := map[string]map[string]Approved{}
	for _, row := range rows {
		if all[row.Template] == nil {
			all[row.Template] = map[string]Approved{}
		}
		all[row.Template][row.Lang] = Approved{row.ContentSID, maps.Clone(row.Variables)}
	}
	return all, nil
}
