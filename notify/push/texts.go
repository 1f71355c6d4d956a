package push

import (
	"strconv"
	"strings"

	"nowserving/models"
)

// text is the text of a notification.
type text struct{ title, body models.Translation }

// texts are the texts of pushes. They hold no names and no reasons, because a locked
// phone shows them.
var texts = map[models.EventType]text{
	models.EventNewPending: {
		models.Translation{En: "A patient is waiting", Ar: "مراجع ينتظر"},
		models.Translation{En: "Open the queue to take the next one.", Ar: "افتح قائمة الانتظار لاستقبال التالي."},
	},
	models.EventAssigned: {
		models.Translation{En: "It is your turn", Ar: "حان دورك"},
		models.Translation{En: "Your request has been accepted. Please come in.", Ar: "تم قبول طلبك. تفضل بالدخول."},
	},
	models.EventCalled: {
		models.Translation{En: "You are being called again", Ar: "يُنادى عليك مرة أخرى"},
		models.Translation{En: "Please come in now.", Ar: "تفضل بالدخول الآن."},
	},
	models.EventExpired: {
		models.Translation{En: "Your booking has expired", Ar: "انتهت مهلة حجزك"},
		models.Translation{En: "Nobody could take it in time. You can join again.", Ar: "لم يتمكن أحد من استقبالك في الوقت المحدد. يمكنك الانضمام من جديد."},
	},
	models.EventCanceled: {
		models.Translation{En: "Your booking has been canceled", Ar: "أُلغي حجزك"},
		models.Translation{En: "Open the app for details.", Ar: "افتح التطبيق لمعرفة التفاصيل."},
	},
	models.EventConfirmed: {
		models.Translation{En: "Your appointment is confirmed", Ar: "تم تأكيد موعدك"},
		models.Translation{En: "Open the app for the time and place.", Ar: "افتح التطبيق لمعرفة الوقت والمكان."},
	},
	models.EventRejected: {
		models.Translation{En: "Your request was not accepted", Ar: "لم يُقبل طلبك"},
		models.Translation{En: "Open the app to choose another time.", Ar: "افتح التطبيق لاختيار وقت آخر."},
	},
	models.EventComeNow: {
		models.Translation{En: "You are number {n}: come now", Ar: "ترتيبك {n}: تفضل بالحضور الآن"},
		models.Translation{En: "It will soon be your turn.", Ar: "سيحين دورك قريبًا."},
	},
}

// reminders are the texts of the reminders of an appointment.
var reminders = map[models.Reminder]text{
	models.ReminderDayBefore: {
		models.Translation{En: "Your appointment is tomorrow", Ar: "موعدك غدًا"},
		models.Translation{En: "Open the app for the time and place.", Ar: "افتح التطبيق لمعرفة الوقت والمكان."},
	},
	models.ReminderHourBefore: {
		models.Translation{En: "Your appointment is in an hour", Ar: "موعدك بعد ساعة"},
		models.Translation{En: "Open the app for the time and place.", Ar: "افتح التطبيق لمعرفة الوقت والمكان."},
	},
	models.ReminderTenBefore: {
		models.Translation{En: "Your appointment is in ten minutes", Ar: "موعدك بعد عشر دقائق"},
		models.Translation{En: "Please be there in time.", Ar: "يُرجى الحضور في الوقت المحدد."},
	},
	models.ReminderAtStart: {
		models.Translation{En: "Your appointment begins now", Ar: "يبدأ موعدك الآن"},
		models.Translation{En: "Please come in.", Ar: "تفضل بالدخول."},
	},
	models.ReminderAfterEnd: {
		models.Translation{En: "Thank you for your visit", Ar: "شكرًا لزيارتك"},
		models.Translation{En: "We hope to have been of help.", Ar: "نأمل أن نكون قد أفدناك."},
	},
	models.ReminderDayAfter: {
		models.Translation{En: "How are you after your visit?", Ar: "كيف حالك بعد زيارتك؟"},
		models.Translation{En: "Open the app if you need anything further.", Ar: "افتح التطبيق إن احتجت إلى شيء آخر."},
	},
}

// words returns the title and the body of a push in a language.
func (j *push) words(lang string) (title, body string) {
	t := texts[j.Type]
	if j.Type == models.EventReminder {
		t = reminders[j.Reminder]
	}
	title = strings.ReplaceAll(t.title.In(lang, t.title.En), "{n}", strconv.Itoa(j.Position))
	return title, t.body.In(lang, t.body.En)
}
