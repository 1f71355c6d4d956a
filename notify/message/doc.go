// Package message sends e-mails, SMS and WhatsApp messages: one-time codes, reminders
// and news to members. It holds their wordings, the senders and the log of attempts.
//
// A message that can't be accepted at present is retried until it is useless; an
// error in our settings pauses the provider and loses nothing.
package message
