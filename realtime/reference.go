package realtime

import (
	"reflect"

	"nowserving/models"
)

// Message describes a kind of publication, for the API reference.
type Message struct {
	// Channel is the kind of channel it comes on: booking, queue or display.
	Channel string
	Type    models.EventType
	About   string
	// Payload is the type of its data.
	Payload reflect.Type
}

// Messages are all kinds of publications, and the snapshot of a display. The
// other snapshots come from the Source.
var Messages = []Message{
	{"booking", models.EventPositionUpdated, "The booking's position has changed.", reflect.TypeFor[positionUpdated]()},
	{"booking", models.EventAssigned, "A resource has taken the booking.", reflect.TypeFor[bookingAssigned]()},
	{"booking", models.EventCalled, "The patient is called again.", reflect.TypeFor[bookingCalled]()},
	{"booking", models.EventExpired, "No resource took the booking in time, or it was rejected.", reflect.TypeFor[bookingClosed]()},
	{"booking", models.EventCanceled, "The booking is canceled.", reflect.TypeFor[bookingClosed]()},
	{"booking", models.EventEnded, "The visit has ended, or the patient did not come.", reflect.TypeFor[bookingUpdated]()},
	{"booking", models.EventUpdated, "Anything else has changed: read the stage.", reflect.TypeFor[bookingUpdated]()},
	{"queue", models.EventNewPending, "A booking waits that the resource may take.", reflect.TypeFor[bookingPending]()},
	{"queue", models.EventQueueUpdated, "The queue has changed: read it again where that matters. What changed last is named where it is known.", reflect.TypeFor[queueUpdated]()},
	{"display", models.EventSnapshot, "Everything the display shows; the data of the subscribe reply.", reflect.TypeFor[displaySnapshot]()},
	{"display", models.EventNowServing, "A ticket is called or called again: announce it.", reflect.TypeFor[nowServing]()},
	{"display", models.EventDisplayUpdated, "Everything the display shows, after a change.", reflect.TypeFor[displayUpdated]()},
}

// CodeText describes a close code or a protocol error, for the API reference.
type CodeText struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
	About  string `json:"about"`
	// Retry reports whether the client's library tries again by itself.
	Retry bool `json:"retry"`
}

func closing(f disconnect, about string) CodeText {
	const terminal = 3500 // and up to 3999; below, the libraries connect again
	return CodeText{int(f.code), f.reason, about, f.code < terminal}
}

// CloseCodes are the codes with which the service closes connections.
var CloseCodes = []CodeText{
	{1009, "", "A frame was longer than 32 KiB.", false},
	closing(closeShutdown, "The node is stopping."),
	closing(closeSilent, "No connect command came within 10 s."),
	closing(closeUnchecked, "It can't be checked just now whether the credential still holds."),
	closing(closeExpired, "The token has expired: connect with a new one."),
	closing(closeSlow, "The client takes its publications too slowly."),
	closing(closeGone, "An organization whose channels the client watches was deleted; the token stays good."),
	closing(closeNoPong, "A ping was not answered in time."),
	closing(closeChanged, "What the credential may do has changed: get a new token."),
	closing(closeBadToken, "There is no token, or it is not valid."),
	closing(closeRevoked, "The credential was revoked."),
	closing(closeBadRequest, "A command can't be read or is out of order."),
	closing(closeOrigin, "Pages of this origin may not connect for the organization."),
	closing(closeTooMany, "The patient has too many connections; the oldest is closed."),
	closing(closeNotAvailable, "The command send is not available."),
}

// Errors are the errors with which commands are answered.
var Errors = []CodeText{
	{int(errInternal.Code), errInternal.Message, "The service can't answer just now.", errInternal.Temporary},
	{int(errUnknownChannel.Code), errUnknownChannel.Message, "There is no such channel, or nothing with this id.", errUnknownChannel.Temporary},
	{int(errPermissionDenied.Code), errPermissionDenied.Message, "The credential may not watch this.", errPermissionDenied.Temporary},
	{int(errAlreadySubscribed.Code), errAlreadySubscribed.Message, "The connection is subscribed to the channel.", errAlreadySubscribed.Temporary},
	{int(errLimitExceeded.Code), errLimitExceeded.Message, "A connection has at most 100 subscriptions.", errLimitExceeded.Temporary},
	{int(errNotAvailable.Code), errNotAvailable.Message, "The command is not available: publish, history, presence, rpc.", errNotAvailable.Temporary},
	{int(errTokenExpired.Code), errTokenExpired.Message, "The token has expired: the library asks getToken for a new one.", true},
	{int(errTooManyRequests.Code), errTooManyRequests.Message, "More requests came in a minute than are allowed.", errTooManyRequests.Temporary},
}
