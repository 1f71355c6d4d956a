package message

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"

	"nowserving/booking/store"
	"nowserving/models"
	"nowserving/notify/outbox"
)

// remindersByDefault are the methods an organization that has said nothing
// reminds by, the preferred first.
var remindersByDefault = map[models.Reminder][]string{
	models.ReminderDayBefore:  {methodEmail, methodSMS},
	models.ReminderHourBefore: {methodEmail, methodSMS},
}

// Plan writes a message when a reminder is due: to the patient, by the first
// method the organization prefers that can be sent and has an address.
func (p *Messages) Plan(ctx context.Context, a *outbox.Announcement) (outbox.Step, error) {
	if a.Event.Type != models.EventReminder {
		return nil, nil
	}
	reminder := a.Event.Reminder
	if _, ok := templates[string(reminder)]; !ok {
		return nil, nil
	}
	db := p.Store.Read(ctx)
	preferred, err := reminderMethods(db, a.OrganizationID)
	if err != nil {
		return nil, err
	}
	if len(preferred[reminder]) == 0 {
		return nil, nil
	}
	v, err := readVisit(db, a)
	if err != nil || v == nil || v.booking.StartsAt == nil {
		return nil, err
	}
	phone, email := v.customer.Contact()
	addresses := map[string]string{methodEmail: email, methodSMS: phone, methodWhatsApp: phone}
	lang, err := customerLanguage(db, &v.customer)
	if err != nil {
		return nil, err
	}
	for _, method := range preferred[reminder] {
		to := addresses[method]
		if to == "" || !p.CanSend(method) {
			continue
		}
		if can, err := p.canWord(db, a.OrganizationID, string(reminder), method, lang); err != nil {
			return nil, err
		} else if !can {
			continue
		}
		m, err := p.reminder(a, v, lang, method, to)
		if err != nil {
			return nil, err
		}
		return func(tx *store.Tx) error {
			gone, err := outbox.Erased(tx, m.OrganizationID, []string{m.BookingID})
			if err == nil && !gone[m.BookingID] {
				tx.Enqueue(m)
			}
			return err
		}, nil
	}
	return nil, nil
}

// visit is an appointment with all that a reminder of it names.
type visit struct {
	booking      models.Booking
	customer     models.Customer
	organization models.Organization
	bookingType  models.BookingType
	resource     models.Resource
}

// readVisit reads what a reminder names, or nil where there is no such booking
// any more.
func readVisit(db *gorm.DB, a *outbox.Announcement) (*visit, error) {
	v := &visit{}
	err := db.Where("organization_id = ? AND id = ?", a.OrganizationID, a.Event.BookingID).Take(&v.booking).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the booking to remind of: %w", err)
	}
	for _, part := range []struct {
		into any
		id   string
	}{{&v.customer, v.booking.CustomerID}, {&v.organization, a.OrganizationID}, {&v.bookingType, v.booking.TypeID}, {&v.resource, a.Event.ResourceID}} {
		if err := db.Where("id = ?", part.id).Limit(1).Find(part.into).Error; err != nil {
			return nil, fmt.Errorf("read what a reminder names: %w", err)
		}
	}
	return v, nil
}

// reminder makes the message.
func (p *Messages) reminder(a *outbox.Announcement, v *visit, lang, method, to string) (models.Message, error) {
	zone, err := time.LoadLocation(v.organization.Timezone)
	if err != nil {
		return models.Message{}, fmt.Errorf("the time zone of an organization: %w", err)
	}
	until := a.Event.Reminder.Due(*v.booking.StartsAt, *v.booking.EndsAt).Add(a.Event.Reminder.Tolerance())
	starts := v.booking.StartsAt.In(zone)
	sealed, err := models.MessageContent{To: to, Values: map[string]string{
		"type":     v.bookingType.NameTranslations.In(lang, v.bookingType.Name),
		"resource": v.resource.NameTranslations.In(lang, v.resource.Name),
		"date":     dateIn(lang, starts), "time": starts.Format("15:04"), "ticket": v.booking.Ticket, "url": p.opts.PublicURL,
		"calendarUrl": p.calendarURL(v.booking.ID, lang),
	}}.Seal(p.sealer)
	return models.Message{
		OrganizationID: a.OrganizationID, Template: string(a.Event.Reminder), Method: method, Lang: lang,
		BookingID: v.booking.ID, Until: until, Sealed: sealed,
	}, err
}

// calendarURL is the address of the calendar file of an appointment. Its token is signed,
// because the ticket token is kept as a hash only; see access.CalendarLink.
func (p *Messages) calendarURL(bookingID, lang string) string {
	address := strings.TrimRight(p.opts.PublicURL, "/") + "/customer/bookings/" + bookingID + ".ics?token=" + p.links.Tag(bookingID)
	if lang != "en" {
		address += "&language=" + lang
	}
	return address
}

// customerLanguage is the language of messages to a customer: that of their newest
// device, else the one they last signed in with, else English.
func customerLanguage(db *gorm.DB, c *models.Customer) (string, error) {
	var langs []string
	err := db.Raw("SELECT lang FROM devices WHERE organization_id = ? AND customer_id = ? ORDER BY updated_at DESC LIMIT 1", c.OrganizationID, c.ID).Scan(&langs).Error
	if err != nil {
		return "", fmt.Errorf("read the language of a customer: %w", err)
	}
	return languageOf(append(langs, c.Lang)[0]), nil
}

// obsolete reports whether what a message says is no longer so.
func (p *Messages) obsolete(ctx context.Context, m *models.Message) (bool, error) {
	living, err := p.Living(ctx, m.OrganizationID)
	if err != nil || !living {
		return true, err
	}
	if m.BookingID == "" {
		return false, nil
	}
	var b []models.Booking
	err = p.Store.Read(ctx).Where("organization_id = ? AND id = ?", m.OrganizationID, m.BookingID).Limit(1).Find(&b).Error
	if err != nil {
		return false, fmt.Errorf("read the booking of a message: %w", err)
	}
	if len(b) == 0 || b[0].Status != models.StatusConfirmed {
		return true, nil
	}
	switch models.Reminder(m.Template) {
	case models.ReminderAfterEnd, models.ReminderDayAfter:
		return b[0].Stage == models.StageNoShow || b[0].Stage == models.StageLeft, nil
	case models.ReminderDayBefore, models.ReminderHourBefore, models.ReminderTenBefore, models.ReminderAtStart:
		return b[0].Stage != models.StageNone, nil // called, or over
	}
	return false, nil
}
