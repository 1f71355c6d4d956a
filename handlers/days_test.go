package handlers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A day lasts from its first moment to the first moment of the next day, whatever
// its number of hours, and even if the clocks skip midnight.
func TestADayHasTheBoundsOfItsTimeZone(t *testing.T) {
	t.Parallel()
	for _, day := range []struct{ zone, date, begins, ends string }{
		{"Asia/Riyadh", "2027-03-28", "2027-03-27T21:00:00Z", "2027-03-28T20:59:59.999999Z"},
		{"Europe/Berlin", "2027-03-28", "2027-03-27T23:00:00Z", "2027-03-28T21:59:59.999999Z"},
		{"Europe/Berlin", "2027-10-31", "2027-10-30T22:00:00Z", "2027-10-31T22:59:59.999999Z"},
		{"Africa/Cairo", "2024-04-26", "2024-04-25T22:00:00Z", "2024-04-26T20:59:59.999999Z"},   // leaps over midnight
		{"Africa/Cairo", "2024-04-25", "2024-04-24T22:00:00Z", "2024-04-25T21:59:59.999999Z"},   // ends at the leap
		{"Africa/Cairo", "2024-10-31", "2024-10-30T21:00:00Z", "2024-10-31T21:59:59.999999Z"},   // has its last hour twice
		{"America/Havana", "2024-11-03", "2024-11-03T04:00:00Z", "2024-11-04T04:59:59.999999Z"}, // has midnight twice
	} {
		zone, err := time.LoadLocation(day.zone)
		require.NoError(t, err)
		from, err := beginning(day.date, zone)
		require.NoError(t, err)
		to, err := ending(day.date, zone)
		require.NoError(t, err)
		assert.Equal(t, day.begins, from.UTC().Format(time.RFC3339Nano), "%v", day)
		assert.Equal(t, day.ends, to.UTC().Format(time.RFC3339Nano), "%v", day)
	}
}
