package loadtest_test

import (
	"fmt"

	"nowserving/loadtest"
)

// A generated day of a clinic can be replayed against a server. The same seed gives
// the same day.
func ExampleGenerateTrace() {
	first, err := loadtest.GenerateTrace(300, 7)
	if err != nil {
		panic(err)
	}
	second, err := loadtest.GenerateTrace(300, 7)
	if err != nil {
		panic(err)
	}
	fmt.Println(len(first.Visits), first.Visits[42] == second.Visits[42])
	// Output: 300 true
}
