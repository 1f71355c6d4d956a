package store

import (
	"time"

	"gorm.io/gorm"
)

// Page bounds a list in the order of ids: at most Limit rows after the row with
// id After. An empty After is the first page.
type Page struct {
	Limit int
	After string
}

// Apply adds the bounds to a query. It asks for one row more than Limit, which
// tells the caller whether there are more (see CutPage).
func (p Page) Apply(q *gorm.DB) *gorm.DB {
	if p.After != "" {
		q = q.Where("id > ?", p.After)
	}
	return q.Order("id").Limit(p.Limit + 1)
}

// ApplyNewestFirst is Apply in the opposite order of ids.
func (p Page) ApplyNewestFirst(q *gorm.DB) *gorm.DB {
	if p.After != "" {
		q = q.Where("id < ?", p.After)
	}
	return q.Order("id DESC").Limit(p.Limit + 1)
}

// CutPage cuts rows, of which one more than limit was asked for, to a page. It returns
// the position of the last row if there are more, and "" on the last page.
func CutPage[T any](rows []T, limit int, position func(*T) string) (page []T, next string) {
	if len(rows) <= limit {
		return rows, ""
	}
	return rows[:limit], position(&rows[limit-1])
}

// CreatedBetween narrows a query to the rows that were made from one moment to another,
// both included. A zero moment is no bound.
func CreatedBetween(q *gorm.DB, from, to time.Time) *gorm.DB {
	if !from.IsZero() {
		q = q.Where("created_at >= ?", from.UTC())
	}
	if !to.IsZero() {
		q = q.Where("created_at <= ?", to.UTC())
	}
	return q
}
