package message

import (
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"nowserving/models"
	"nowserving/notify/outbox"
)

// Wording is the text of a message. Its gaps, such as {{code}}, are filled when it is
// sent.
type Wording struct {
	Subject string // of an e-mail; nothing else has one
	Text    string
}

const (
	// maxSubject and maxText bound a wording, in characters. Twilio takes texts of
	// up to 1,600, so there is room for what fills the gaps.
	maxSubject = 150
	maxText    = 700
)

// template is a message we know how to word.
type template struct {
	// gaps may be used in it, beside organization, which is the clinic's name.
	gaps []string
	// needs is a gap without which the message is of no use.
	needs  string
	en, ar Wording
	// mail ends the text of an e-mail that the organization has not worded itself. It is
	// too long for the phone.
	mail models.Translation
}

// gapOrganization is known for every message.
const gapOrganization = "organization"

// reminderGaps are known of an appointment.
var reminderGaps = []string{"type", "resource", "date", "time", "ticket", "url", "calendarUrl"}

// toCalendar is the line with the link to the calendar file of an appointment.
var toCalendar = models.Translation{En: "Add it to your calendar: {{calendarUrl}}", Ar: "أضفه إلى تقويمك: {{calendarUrl}}"}

// templates are all messages by name. A reminder's is its own.
var templates = map[string]template{
	models.TemplateOTP: {
		gaps: []string{"code", "minutes"}, needs: "code",
		en: Wording{
			"{{code}} is your code for {{organization}}",
			"{{code}} is your code for {{organization}}. It is valid for {{minutes}} minutes. Do not share it with anybody.",
		},
		ar: Wording{
			"{{code}} هو رمز التحقق لدى {{organization}}",
			"رمز التحقق الخاص بك لدى {{organization}} هو {{code}}. صلاحيته {{minutes}} دقائق. لا تُطلع عليه أحدًا.",
		},
	},
	string(models.ReminderDayBefore): {
		gaps: reminderGaps, mail: toCalendar,
		en: Wording{
			"Your appointment at {{organization}} on {{date}}",
			"A reminder from {{organization}}: your appointment ({{type}}, {{resource}}) is on {{date}} at {{time}}.",
		},
		ar: Wording{
			"موعدك لدى {{organization}} يوم {{date}}",
			"تذكير من {{organization}}: موعدك ({{type}}، {{resource}}) يوم {{date}} الساعة {{time}}.",
		},
	},
	string(models.ReminderHourBefore): {
		gaps: reminderGaps, mail: toCalendar,
		en: Wording{
			"Your appointment at {{organization}} at {{time}}",
			"A reminder from {{organization}}: your appointment ({{type}}, {{resource}}) is today at {{time}}. Your ticket is {{ticket}}.",
		},
		ar: Wording{
			"موعدك لدى {{organization}} الساعة {{time}}",
			"تذكير من {{organization}}: موعدك ({{type}}، {{resource}}) اليوم الساعة {{time}}. رقم تذكرتك {{ticket}}.",
		},
	},
	string(models.ReminderTenBefore): {
		gaps: reminderGaps,
		en: Wording{
			"Your appointment at {{organization}} begins at {{time}}",
			"Your appointment at {{organization}} ({{type}}, {{resource}}) begins at {{time}}. Your ticket is {{ticket}}.",
		},
		ar: Wording{
			"يبدأ موعدك لدى {{organization}} الساعة {{time}}",
			"يبدأ موعدك لدى {{organization}} ({{type}}، {{resource}}) الساعة {{time}}. رقم تذكرتك {{ticket}}.",
		},
	},
	string(models.ReminderAtStart): {
		gaps: reminderGaps,
		en: Wording{
			"It is time for your appointment at {{organization}}",
			"It is time for your appointment at {{organization}} ({{type}}, {{resource}}). Your ticket is {{ticket}}.",
		},
		ar: Wording{
			"حان موعدك لدى {{organization}}",
			"حان موعدك لدى {{organization}} ({{type}}، {{resource}}). رقم تذكرتك {{ticket}}.",
		},
	},
	string(models.ReminderAfterEnd): {
		gaps: reminderGaps,
		en:   Wording{"Thank you for your visit to {{organization}}", "Thank you for your visit to {{organization}} ({{type}}, {{resource}}). We wish you well."},
		ar:   Wording{"شكرًا لزيارتك {{organization}}", "شكرًا لزيارتك {{organization}} ({{type}}، {{resource}}). مع تمنياتنا لك بالعافية."},
	},
	string(models.ReminderDayAfter): {
		gaps: reminderGaps,
		en:   Wording{"How are you after your visit to {{organization}}?", "You visited {{organization}} on {{date}} ({{type}}, {{resource}}). If you have a question, please call us."},
		ar:   Wording{"كيف حالك بعد زيارتك {{organization}}؟", "زرت {{organization}} يوم {{date}} ({{type}}، {{resource}}). إن كان لديك سؤال فاتصل بنا."},
	},
	"webhookDisabled": {
		gaps: []string{"url", "reason"},
		en: Wording{
			"A webhook of {{organization}} was switched off",
			"We switched off the webhook of {{organization}} to {{url}}: {{reason}}. Mend the receiver, then add the webhook again.",
		},
		ar: Wording{
			"أُوقف أحد روابط الويب (webhook) لدى {{organization}}",
			"أوقفنا رابط الويب (webhook) الخاص بـ {{organization}} إلى {{url}}: {{reason}}. أصلح الجهة المستقبِلة ثم أضف الرابط من جديد.",
		},
	},
}

// reasonsInWords say why a webhook was switched off.
var reasonsInWords = map[string]models.Translation{
	outbox.ReasonGone:    {En: "it answered 410 Gone", Ar: "أجاب بالرمز 410 (لم يعد موجودًا)"},
	outbox.ReasonFailing: {En: "it took nothing for five days", Ar: "لم يستلم شيئًا منذ خمسة أيام"},
}

// in returns the template's own wording in a language: ar, or English.
func (t *template) in(lang string) Wording {
	if lang == "ar" {
		return t.ar
	}
	return t.en
}

// by returns the template's own wording in a language for a method.
func (t *template) by(method, lang string) Wording {
	w := t.in(lang)
	if last := t.mail.In(lang, ""); last != "" && method == methodEmail {
		w.Text += "\n\n" + last
	}
	return w
}

// or returns the wording, with other's words where it has none.
func (w Wording) or(other Wording) Wording {
	if w.Subject == "" {
		w.Subject = other.Subject
	}
	if w.Text == "" {
		w.Text = other.Text
	}
	return w
}

var gapPattern = regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)

// fill puts values into the gaps of a text. A value's own braces are left alone.
func fill(text string, values map[string]string) string {
	return gapPattern.ReplaceAllStringFunc(text, func(gap string) string {
		return values[gapPattern.FindStringSubmatch(gap)[1]]
	})
}

// check refuses a wording that could not be sent.
func (t *template) check(field string, w Wording) error {
	for _, part := range []struct {
		name, text string
		limit      int
	}{{"subject", w.Subject, maxSubject}, {"text", w.Text, maxText}} {
		name := field + "." + part.name
		if utf8.RuneCountInString(part.text) > part.limit {
			return models.Invalid(name, "It has at most %d characters.", part.limit)
		}
		if err := t.checkGaps(name, part.text); err != nil {
			return err
		}
	}
	if strings.ContainsAny(w.Subject, "\r\n") {
		return models.Invalid(field+".subject", "A subject is one line.")
	}
	if w.Text != "" && !t.mentions(w.Text) {
		return models.Invalid(field+".text", "The text needs the gap {{%s}}.", t.needs)
	}
	return nil
}

// checkGaps refuses a text with a gap that the template does not fill.
func (t *template) checkGaps(field, text string) error {
	for _, found := range gapPattern.FindAllStringSubmatch(text, -1) {
		if known := t.known(); !slices.Contains(known, found[1]) {
			return models.Invalid(field, "There is no gap {{%s}} in this message; there are %s.", found[1], strings.Join(known, ", "))
		}
	}
	if rest := gapPattern.ReplaceAllString(text, ""); strings.Contains(rest, "{{") || strings.Contains(rest, "}}") {
		return models.Invalid(field, "A gap is written {{name}}.")
	}
	return nil
}

// mentions reports whether a text has the gap that the message needs, if it needs
// one.
func (t *template) mentions(text string) bool {
	return t.needs == "" || strings.Contains(fill(text, map[string]string{t.needs: "\x00"}), "\x00")
}

// known are the gaps of a template.
func (t *template) known() []string { return append([]string{gapOrganization}, t.gaps...) }

// The names of days and months in Arabic, as the calendar of the Gulf has them.
var (
	weekdaysAr = [...]string{"الأحد", "الاثنين", "الثلاثاء", "الأربعاء", "الخميس", "الجمعة", "السبت"}
	monthsAr   = [...]string{"يناير", "فبراير", "مارس", "أبريل", "مايو", "يونيو", "يوليو", "أغسطس", "سبتمبر", "أكتوبر", "نوفمبر", "ديسمبر"}
)

// dateIn is a day in words.
func dateIn(lang string, at time.Time) string {
	if lang == "ar" {
		return weekdaysAr[at.Weekday()] + at.Format(" 2 ") + monthsAr[at.Month()-1] + at.Format(" 2006")
	}
	return at.Format("Monday 2 January 2006")
}
