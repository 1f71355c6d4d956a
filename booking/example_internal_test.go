package booking

import (
	"fmt"
	"time"
)

// In Berlin the clocks go from 2:00 to 3:00 on 28 March 2027, and from 3:00 back to
// 2:00 on 31 October.
func Example_localTime() {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	for _, at := range []struct {
		day      string
		military int
	}{{"2027-03-28", 130}, {"2027-03-28", 230}, {"2027-10-31", 230}} {
		fmt.Println(localTime(at.day, at.military, berlin))
	}
	// Output:
	// 2027-03-28 00:30:00 +0000 UTC <nil>
	// 0001-01-01 00:00:00 +0000 UTC REQ-INVALID: The clocks in Europe/Berlin leap over 02:30 on that day.
	// 2027-10-31 00:30:00 +0000 UTC <nil>
}
