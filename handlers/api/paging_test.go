package api_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"nowserving/handlers/api"
)

func TestAListWithAViewThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	_, err := api.TryListOf([]int{1, 2, 3}, 3, func(n *int) string { return strconv.Itoa(*n) }, func(n *int) (int, error) {
		if *n == 2 {
			return 0, broken
		}
		return *n, nil
	})
	assert.ErrorIs(t, err, broken)
}

// A row beyond the limit tells that there is a next page.
func ExampleListOf() {
	rows := []int{10, 20, 30}
	page := api.ListOf(rows, 2, func(n *int) string { return fmt.Sprint("after ", *n) }, func(n *int) string { return fmt.Sprint("#", *n) })
	fmt.Println(page.Result, page.Pagination.HasMore, *page.Pagination.NextPageToken)
	// Output: [#10 #20] true after 20
}
