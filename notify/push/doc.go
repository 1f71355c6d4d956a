// Package push sends events, positions and reminders to phones over FCM.
//
// An event is pushed by a job. A position is a state: a sweep sends each waiting
// customer's position if it differs from the last one sent, and the newest replaces
// its predecessor on the phone.
package push
