package api

import (
	"cmp"

	"nowserving/booking/store"
)

// Result is the envelope of most answers.
type Result[T any] struct {
	Result T `json:"result"`
}

// List is the envelope of a page of a list.
type List[T any] struct {
	Result     []T        `json:"result" nullable:"false"`
	Pagination Pagination `json:"pagination"`
}

// Pagination says how to get the next page.
type Pagination struct {
	NextPageToken *string `json:"nextPageToken" doc:"Get the next page with it; null on the last."`
	HasMore       bool    `json:"hasMore"`
}

// Message is the answer of a deletion.
type Message struct {
	Message string `json:"message"`
}

// Paging are the query parameters of a list.
type Paging struct {
	Limit int    `query:"limit" default:"10" minimum:"1" doc:"Items on a page; at most 100, more are not given."`
	Token string `query:"nextPageToken" doc:"From the page before; the first page by default."`
}

const (
	// DefaultPage is how many items a page has by default.
	DefaultPage = 10
	// MaxPage is how many items a page has at most.
	MaxPage = 100
)

// Page returns the bounds of the page.
func (p Paging) Page() store.Page { return PageOf(p.Limit, p.Token) }

// PageOf returns the bounds of a page of at most limit items, and at most MaxPage,
// after the position that an opened page token holds.
func PageOf(limit int, token string) store.Page {
	return store.Page{Limit: min(limit, MaxPage), After: token}
}

// ListOf makes a page of rows. A row beyond limit tells that there is a next page;
// it continues after the id of the last row shown.
func ListOf[M, V any](rows []M, limit int, id func(*M) string, show func(*M) V) List[V] {
	rows, next := store.CutPage(rows, limit, id)
	out := List[V]{Result: make([]V, 0, len(rows)), Pagination: NextPage(next)}
	for i := range rows {
		out.Result = append(out.Result, show(&rows[i]))
	}
	return out
}

// TryListOf is ListOf with views that can fail.
func TryListOf[M, V any](rows []M, limit int, id func(*M) string, show func(*M) (V, error)) (List[V], error) {
	var failed error
	out := ListOf(rows, limit, id, func(row *M) V {
		view, err := show(row)
		failed = cmp.Or(failed, err)
		return view
	})
	return out, failed
}

// PageInfo implements PagedAnswer.
func (l *List[T]) PageInfo() *Pagination { return &l.Pagination }

// NextPage returns the Pagination of a page that the next one continues after the
// position token. An empty token is that of the last page.
func NextPage(token string) Pagination {
	if token == "" {
		return Pagination{}
	}
	return Pagination{&token, true}
}
