package outbox

import (
	"net/http"
	"strconv"
	"time"
)

// RetryAfter returns how long an answer asks to wait, in seconds or until a date (RFC
// 9110, 10.2.3, Retry-After), and at most most. It returns otherwise if the answer has
// no such header.
func RetryAfter(h http.Header, most, otherwise time.Duration) time.Duration {
	asked := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(asked); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, int(most/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(asked); err == nil {
		now, err := http.ParseTime(h.Get("Date")) // by the clock that the date is of
		if err != nil {
			now = time.Now()
		}
		return min(max(at.Sub(now), 0), most)
	}
	return otherwise
}
