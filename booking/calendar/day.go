package calendar

import (
	"time"

	"nowserving/models"
)

const minutesOfDay = 24 * 60

// Day is a day of the calendar: the number of days since 1970-01-01.
type Day int32

// ParseDay reads a day such as 2026-01-31.
func ParseDay(text string) (Day, bool) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return 0, false
	}
	return dayOf(t), true
}

// DayOf returns the day that a moment falls on in a time zone.
func DayOf(t time.Time, zone *time.Location) Day { return dayOf(t.In(zone)) }

// dayOf returns the day of t as t's own location writes it.
func dayOf(t time.Time) Day {
	y, m, d := t.Date()
	return Day(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / (minutesOfDay * 60))
}

// String returns the day as 2026-01-31.
func (d Day) String() string { return d.utc().Format(time.DateOnly) }

func (d Day) utc() time.Time { return time.Unix(int64(d)*minutesOfDay*60, 0).UTC() }

// Weekday returns the day of the week: 0 is Sunday.
func (d Day) Weekday() int { return (int(d)%7 + 11) % 7 } // day 0 was a Thursday

// Minute returns the moment, in minutes since 1970, at which the clocks of a zone show
// a time of the day, given in minutes since midnight; 1440 and more are on the days
// after. A time that the clocks show twice is the first of the two. exists is false for
// a time that they leap over; the moment of the leap is returned then.
func (d Day) Minute(ofDay int, zone *time.Location) (minute int64, exists bool) {
	day := d.utc().AddDate(0, 0, ofDay/minutesOfDay)
	hour, minuteOf := ofDay%minutesOfDay/60, ofDay%60
	t := time.Date(day.Year(), day.Month(), day.Day(), hour, minuteOf, 0, 0, zone)
	change, next := t.ZoneBounds()
	if t.Hour() != hour || t.Minute() != minuteOf || t.Day() != day.Day() {
		// time.Date uses the offset of before or of after the leap.
		leap := change
		if !next.IsZero() && (leap.IsZero() || next.Sub(t) < t.Sub(change)) {
			leap = next
		}
		return floorMinute(leap), false
	}
	if !change.IsZero() {
		// Before the clocks were set back they may have shown the same.
		_, before := change.Add(-time.Second).Zone()
		_, after := t.Zone()
		if earlier := t.Add(time.Duration(after-before) * time.Second); before > after && earlier.Before(change) {
			t = earlier
		}
	}
	return floorMinute(t), true
}

func floorMinute(t time.Time) int64 { return t.Unix() / 60 }

// moment returns a minute as a time in UTC.
func moment(minute int64) time.Time { return time.Unix(minute*60, 0).UTC() }

// clock returns the day and the minute of the day that the clocks of a zone show.
// first is false where they showed the same before.
func clock(minute int64, zone *time.Location) (day Day, ofDay int, first bool) {
	t := moment(minute).In(zone)
	day, ofDay = dayOf(t), t.Hour()*60+t.Minute()
	at, exists := day.Minute(ofDay, zone)
	return day, ofDay, exists && at == minute
}

// Military returns a minute of the day as military time: 1100 is 1820.
func Military(ofDay int) int { return ofDay/60*100 + ofDay%60 }

// OfDay returns military time as a minute of the day. end allows 2400.
func OfDay(military int, end bool) (ofDay int, ok bool) {
	hour, minute := military/100, military%100
	if military < 0 || minute > 59 || hour > 24 || hour == 24 && (minute > 0 || !end) {
		return 0, false
	}
	return hour*60 + minute, true
}

// Moment returns the moment at which the clocks of a zone show a military time on a
// day; the first if they show it twice. It fails with the field date or time.
func Moment(date string, military int, zone *time.Location) (time.Time, error) {
	day, ok := ParseDay(date)
	if !ok {
		return time.Time{}, models.Invalid("date", "Give a day such as 2023-01-11.")
	}
	ofDay, ok := OfDay(military, false)
	if !ok {
		return time.Time{}, models.Invalid("time", "Give a military time, 0 to 2359, such as 1820 for 18:20.")
	}
	minute, exists := day.Minute(ofDay, zone)
	if !exists {
		return time.Time{}, models.Invalid("time", "The clocks in %s leap over %02d:%02d on that day.", zone, ofDay/60, ofDay%60)
	}
	return moment(minute), nil
}

// Start returns the moment at which a day begins in a time zone.
func (d Day) Start(zone *time.Location) time.Time {
	minute, _ := d.Minute(0, zone)
	return moment(minute)
}
