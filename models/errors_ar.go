package models

// MeaningIn is the failure's meaning in a language: "ar", or English.
func (f Failure) MeaningIn(lang string) string {
	if text, ok := meaningsAr[f.Code]; ok && lang == "ar" {
		return text
	}
	return f.Meaning
}

// meaningsAr are the meanings of the catalogue in Arabic.
//
//nolint:gosec // texts, not credentials
var meaningsAr = map[Code]string{
	CodeAlreadyAssigned: "أُسند هذا الحجز إلى جهة أخرى.",
	CodeExpired:         "انتهت مهلة إسناد الحجز وانقضت صلاحيته.",
	CodeTypeMismatch:    "لا تقدم هذه الجهة نوع الخدمة المطلوب، أو استبعدتها اختيارات المراجع.",
	CodeMalformed:       "الطلب ليس JSON صحيحًا بترميز UTF-8، أو فيه معامل لا يُقرأ.",
	CodeAppRequired:     "لم تُحدَّد المنشأة؛ أرسل معرّفها في الترويسة X-APP-ID.",
	CodeUnauthenticated: "لم يصل مع الطلب ما يثبت الهوية، أو أنه غير صالح.",
	CodeTokenExpired:    "انتهت صلاحية رمز الدخول.",
	CodeKeyExpired:      "انتهت صلاحية مفتاح الربط.",
	CodeKeyReduced:      "فقد مفتاح الربط صلاحية الإدارة لأن العضو الذي أنشأه لم يعد مالكًا أو مديرًا.",
	CodeWrongCode:       "رمز التحقق خاطئ أو مستعمل أو منتهي الصلاحية.",
	CodeForbidden:       "لا تملك صلاحية هذا الإجراء.",
	CodeHardDelete:      "لا تُحذف المنشأة نهائيًا إلا في بيئة التطوير.",
	CodeScope:           "نطاق مفتاح الربط لا يسمح بهذا الإجراء.",
	CodeBookingNotFound: "لا يوجد حجز بهذا المعرّف في المنشأة.",
	CodeResourceMissing: "لا توجد جهة خدمة بهذا المعرّف في المنشأة.",
	CodeTypeMissing:     "لا يوجد نوع خدمة بهذا المعرّف في المنشأة.",
	CodeCustomerMissing: "لا يوجد مراجع بهذا المعرّف في المنشأة.",
	CodeSameCustomer:    "المعرّفان لمراجع واحد.",
	CodeDisplayMissing:  "لا توجد شاشة بهذا المعرّف في المنشأة.",
	CodeOrgMissing:      "لا توجد منشأة بهذا المعرّف، أو لا يحق لك رؤيتها.",
	CodeOrgNameTaken:    "لمنشأة أخرى هذا الاسم المختصر.",
	CodeOnSite:          "رمز الحضور ناقص أو غير صحيح.",
	CodePageToken:       "رمز الصفحة غير صالح أو انتهت مدته أو أُعطي لطلب آخر.",
	CodeKeyMissing:      "لا يوجد مفتاح بهذا الاسم.",
	CodeQueueEmpty:      "لا أحد ينتظر في الدور.",
	CodeRouteMissing:    "لا يوجد عنوان كهذا.",
	CodeMethod:          "لا يقبل هذا العنوان هذه الطريقة.",
	CodeStage:           "لا تسمح حالة الحجز بهذا الإجراء.",
	CodeNothingToUndo:   "لا يوجد إجراء في آخر ثلاثين ثانية يمكن التراجع عنه.",
	CodeNobodyServes:    "لا توجد جهة خدمة عاملة تقدم نوع الخدمة المطلوب.",
	CodeNotOffered:      "لا يمكن للمرضى حجز نوع الخدمة أو المورد بأنفسهم.",
	CodeTypeOff:         "نوع الخدمة موقوف.",
	CodeResourceOff:     "جهة الخدمة موقوفة.",
	CodeQueuePaused:     "أوقفت جهة الخدمة دورها مؤقتًا.",
	CodeRecallTooSoon:   "نودي المراجع قبل أقل من ستين ثانية.",
	CodeRecallLimit:     "أُعيد نداء المراجع ثلاث مرات.",
	CodeTypeInUse:       "هناك من ينتظر هذا النوع من الخدمة.",
	CodePrefixTaken:     "يستعمل نوع آخر بادئة التذاكر هذه.",
	CodeContactTaken:    "رقم الهاتف أو البريد مسجل لمراجع آخر.",
	CodeBeingServed:     "المراجع منادى عليه أو تجري خدمته الآن.",
	CodeKeyTaken:        "يوجد مفتاح بهذا الاسم.",
	CodeKeyLimit:        "بلغ عدد مفاتيح الربط الحد الأقصى.",
	CodeMemberMissing:   "لا يوجد عضو بهذا المعرّف في المنشأة.",
	CodeMemberTaken:     "رقم الهاتف أو البريد مسجل لعضو آخر.",
	CodeMemberSelf:      "لا يمكن للعضو حذف نفسه.",
	CodeLastOwner:       "يجب أن يبقى للمنشأة مالك واحد على الأقل.",
	CodeWebhookMissing:  "لا يوجد ويب هوك بهذا الحدث والعنوان والمرجع.",
	CodeDeliveryMissing: "لا يوجد إشعار مرسل بهذا المعرّف في المنشأة.",
	CodeWebhookLimit:    "بلغت المنشأة الحد الأقصى من عناوين الويب هوك.",
	CodeWebhookOff:      "الويب هوك الخاص بهذا الإشعار معطّل أو محذوف.",
	CodeTooLarge:        "حجم الطلب أكبر من 1 ميبي بايت.",
	CodeInvalid:         "حقل ناقص، أو نوعه أو قيمته غير صحيحة.",
	CodeSlotTaken:       "لا توجد جهة خدمة متاحة في هذا الوقت.",
	CodePast:            "موعد بدء الحجز قد مضى.",
	CodeInternal:        "حدث خطأ من جهتنا.",
	CodeNoSender:        "لم تُهيأ وسيلة لإرسال رموز التحقق.",
	CodeRequestMismatch: "استُعمل مفتاح عدم التكرار هذا مع طلب آخر من قبل.",
	CodeRequestRunning:  "يجري الآن تنفيذ طلب بمفتاح عدم التكرار هذا؛ أعد الإرسال بعد قليل.",
	CodeAnswerLost:      "نُفّذ الطلب لكن جوابه فُقد؛ لا تعد إرساله، وانظر في ما غيّره.",
	CodeTooManyRequests: "تجاوزت الطلبات الحد المسموح في الدقيقة؛ انتظر قليلًا.",
	CodeTooManyCodes:    "طُلبت رموز تحقق أكثر من المسموح؛ استعمل آخرها أو انتظر.",
	CodeCaptcha:         "تعذر التحقق من أنك إنسان؛ أعد المحاولة.",
	CodeUnavailable:     "جزء من الخدمة لا يستجيب الآن.",
}
