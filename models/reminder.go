package models

import "time"

// reminderTime is when a reminder is due, and how late it is still of use.
type reminderTime struct {
	ofEnd     bool          // counted from the appointment's end, not its beginning
	after     time.Duration // negative: before
	tolerance time.Duration
}

var reminderTimes = map[Reminder]reminderTime{
	ReminderDayBefore:  {false, -24 * time.Hour, 6 * time.Hour},
	ReminderHourBefore: {false, -time.Hour, 15 * time.Minute},
	ReminderTenBefore:  {false, -10 * time.Minute, 5 * time.Minute},
	ReminderAtStart:    {false, 0, 5 * time.Minute},
	ReminderAfterEnd:   {true, 0, 6 * time.Hour},
	ReminderDayAfter:   {true, 24 * time.Hour, 12 * time.Hour},
}

// Reminders lists all reminders in the order they are due.
var Reminders = []Reminder{ReminderDayBefore, ReminderHourBefore, ReminderTenBefore, ReminderAtStart, ReminderAfterEnd, ReminderDayAfter}

// Due returns when the reminder of an appointment from starts to ends is sent.
func (r Reminder) Due(starts, ends time.Time) time.Time {
	t := reminderTimes[r]
	if t.ofEnd {
		return ends.Add(t.after)
	}
	return starts.Add(t.after)
}

// Tolerance is how late the reminder may be sent. Later it is dropped.
func (r Reminder) Tolerance() time.Duration { return reminderTimes[r].tolerance }
