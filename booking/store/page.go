package store

import "gorm.io/gorm"

// Page bounds a list in the order of ids: at most Limit rows after the row with
// id After.
type Page struct {
	Limit int
	After string
}

// Apply adds the bounds to a query. It asks for one row more than Limit, which
// tells the caller whether there are more.
func (p Page) Apply(q *gorm.DB) *gorm.DB {
	if p.After != "" {
		q = q.Where("id > ?", p.After)
	}
	return q.Order("id").Limit(p.Limit + 1)
}
