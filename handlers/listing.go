package handlers

import (
	"nowserving/booking/store"
)

// result is the envelope most answers come in.
type result[T any] struct {
	Result T `json:"result"`
}

// list is the envelope of a page.
type list[T any] struct {
	Result     []T        `json:"result" nullable:"false"`
	Pagination pagination `json:"pagination"`
}

type pagination struct {
	NextPageToken *string `json:"nextPageToken" doc:"Get the next page with it; null on the last."`
	HasMore       bool    `json:"hasMore"`
}

// message is the answer of a deletion.
type message struct {
	Message string `json:"message"`
}

// paging are the query parameters of a list.
type paging struct {
	Limit int    `query:"limit" default:"10" minimum:"1" doc:"Items on a page; at most 100, more are not given."`
	Token string `query:"nextPageToken" doc:"From the page before."`
}

const (
	defaultLimit = 10
	maxLimit     = 100
)

func (p paging) page() store.Page { return pageOf(p.Limit, p.Token) }

// pageOf is a page's bounds; the token is what was kept of the page before.
func pageOf(limit int, token string) store.Page {
	return store.Page{Limit: min(limit, maxLimit), After: token}
}

// listOf makes a page of rows, of which there may be one more than fits. id is
// where the next page goes on.
func listOf[M, V any](rows []M, limit int, id func(*M) string, show func(*M) V) list[V] {
	out := list[V]{Result: make([]V, 0, min(len(rows), limit))}
	for i := range rows[:min(len(rows), limit)] {
		out.Result = append(out.Result, show(&rows[i]))
	}
	if len(rows) > limit {
		out.Pagination = tokenOf(id(&rows[limit-1]))
	}
	return out
}

func (l *list[T]) page() *pagination { return &l.Pagination }

// tokenOf is what the next page needs to know, or none on the last page; it is
// sealed on the way out.
func tokenOf(token string) pagination {
	if token == "" {
		return pagination{}
	}
	return pagination{&token, true}
}
