package handlers

import (
	"encoding/base64"

	"nowserving/booking/store"
	"nowserving/models"
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

func (p paging) page() (store.Page, error) { return pageOf(p.Limit, p.Token) }

// pageOf reads a page's bounds; the token is the last id of the page before.
func pageOf(limit int, token string) (store.Page, error) {
	id, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || !isText(string(id)) {
		return store.Page{}, models.Invalid("nextPageToken", "This is not a token of ours; start from the first page.")
	}
	return store.Page{Limit: min(limit, maxLimit), After: string(id)}, nil
}

// listOf makes a page of rows, of which there may be one more than fits.
func listOf[M, V any](rows []M, limit int, id func(*M) string, show func(*M) V) list[V] {
	out := list[V]{Result: make([]V, 0, min(len(rows), limit))}
	for i := range rows[:min(len(rows), limit)] {
		out.Result = append(out.Result, show(&rows[i]))
	}
	if len(rows) > limit {
		token := base64.RawURLEncoding.EncodeToString([]byte(id(&rows[limit-1])))
		out.Pagination = pagination{&token, true}
	}
	return out
}

// tokenOf is a page token, or none on the last page.
func tokenOf(token string) pagination {
	if token == "" {
		return pagination{}
	}
	return pagination{&token, true}
}
