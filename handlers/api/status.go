package api

import (
	"net/http"

	"nowserving/models"
)

// codes are the error codes by the HTTP status that they are answered with.
var codes = map[int][]models.Code{
	http.StatusBadRequest: {
		models.CodeAlreadyAssigned, models.CodeExpired, models.CodeTypeMismatch, models.CodeMalformed,
		models.CodePageToken, models.CodeAppRequired,
	},
	http.StatusUnauthorized: {
		models.CodeUnauthenticated, models.CodeTokenExpired, models.CodeKeyExpired, models.CodeWrongCode,
	},
	http.StatusForbidden: {
		models.CodeForbidden, models.CodeHardDelete, models.CodeScope, models.CodeKeyReduced, models.CodeOnSite,
		models.CodeCaptcha,
	},
	http.StatusNotFound: {
		models.CodeBookingNotFound, models.CodeResourceMissing, models.CodeTypeMissing, models.CodeCustomerMissing,
		models.CodeDisplayMissing, models.CodeFileMissing, models.CodeOrgMissing, models.CodeKeyMissing, models.CodeMemberMissing,
		models.CodeWebhookMissing, models.CodeDeliveryMissing, models.CodeQueueEmpty, models.CodeRouteMissing,
		models.CodeNoTime, models.CodeFeedMissing,
	},
	http.StatusMethodNotAllowed: {
		models.CodeMethod,
	},
	http.StatusConflict: {
		models.CodeStage, models.CodeNothingToUndo, models.CodeSlotTaken, models.CodeNobodyServes,
		models.CodeNotOffered, models.CodeTypeOff, models.CodeResourceOff, models.CodeQueuePaused,
		models.CodeRecallTooSoon, models.CodeRecallLimit, models.CodeOrgNameTaken, models.CodeTypeInUse,
		models.CodePrefixTaken, models.CodeContactTaken, models.CodeSameCustomer, models.CodeBeingServed,
		models.CodeKeyTaken, models.CodeKeyLimit, models.CodeMemberTaken, models.CodeMemberSelf,
		models.CodeLastOwner, models.CodeWebhookLimit, models.CodeWebhookOff, models.CodeRequestRunning,
		models.CodeAnswerLost, models.CodeOutsideHours, models.CodeTooEarly, models.CodeTooLate, models.CodeOwnOverlap,
		models.CodeBooked, models.CodeResourceInUse,
	},
	http.StatusRequestEntityTooLarge: {
		models.CodeTooLarge,
	},
	http.StatusUnprocessableEntity: {
		models.CodeInvalid, models.CodeRequestMismatch, models.CodePast,
	},
	http.StatusTooManyRequests: {
		models.CodeTooManyRequests, models.CodeTooManyCodes,
	},
	http.StatusInternalServerError: {
		models.CodeInternal,
	},
	http.StatusServiceUnavailable: {
		models.CodeNoSender, models.CodeUnavailable,
	},
}

// statuses are the HTTP statuses by error code.
var statuses = func() map[models.Code]int {
	byCode := map[models.Code]int{}
	for status, list := range codes {
		for _, code := range list {
			byCode[code] = status
		}
	}
	return byCode
}()
