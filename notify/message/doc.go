// Package message sends e-mails, SMS and WhatsApp messages: one-time codes, reminders
// and notices to members. It holds their wordings, the senders and the log of attempts.
//
// A message that a provider refuses for the moment is retried until it expires. An
// error in our settings pauses the provider and loses no message.
package message
