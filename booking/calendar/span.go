package calendar

import (
	"cmp"
	"slices"
)

// Span is a stretch of time in minutes since 1970: To is no part of it.
type Span struct{ From, To int64 }

// merge sorts spans and joins those that touch or overlap.
func merge(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	out := spans[:0]
	for _, s := range spans {
		switch last := len(out) - 1; {
		case s.To <= s.From:
		case last >= 0 && s.From <= out[last].To:
			out[last].To = max(out[last].To, s.To)
		default:
			out = append(out, s)
		}
	}
	return out
}

// intersect returns what two merged lists have in common.
func intersect(a, b []Span) []Span {
	var out []Span
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if from, to := max(a[i].From, b[j].From), min(a[i].To, b[j].To); from < to {
			out = append(out, Span{from, to})
		}
		if a[i].To < b[j].To {
			i++
		} else {
			j++
		}
	}
	return out
}

// subtract returns what the merged list a has and the merged list b has not.
func subtract(a, b []Span) []Span {
	var out []Span
	j := 0
	for _, s := range a {
		for j < len(b) && b[j].To <= s.From {
			j++
		}
		from := s.From
		for k := j; k < len(b) && b[k].From < s.To; k++ {
			if from < b[k].From {
				out = append(out, Span{from, b[k].From})
			}
			from = max(from, b[k].To)
		}
		if from < s.To {
			out = append(out, Span{from, s.To})
		}
	}
	return out
}
