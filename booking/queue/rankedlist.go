package queue

import (
	"slices"
	"sort"
)

// maxBlock bounds the places of one block of a line.
const maxBlock = 512

// line is one queue in order. It is cut into blocks that know how many stand
// before them: a change moves the places of one block only, and a rank takes
// two binary searches, however long the queue is.
type line struct {
	blocks []block
}

type block struct {
	before int // places in the blocks before this one
	places []place
}

type place struct {
	score  int64
	waiter *Waiter
}

// newLine makes a line of waiters in the order of their scores.
func newLine(sorted []*Waiter) line {
	l := line{}
	for chunk := range slices.Chunk(sorted, maxBlock/2) {
		places := make([]place, len(chunk), maxBlock)
		for i, w := range chunk {
			places[i] = place{w.Score, w}
		}
		l.blocks = append(l.blocks, block{places: places})
	}
	l.count(0)
	return l
}

func (l *line) len() int {
	if len(l.blocks) == 0 {
		return 0
	}
	last := &l.blocks[len(l.blocks)-1]
	return last.before + len(last.places)
}

// find returns the block in which a score stands or would stand, and where.
func (l *line) find(score int64) (b, i int) {
	b = sort.Search(len(l.blocks), func(b int) bool { return l.blocks[b].places[0].score > score }) - 1
	if b < 0 {
		return 0, 0
	}
	places := l.blocks[b].places
	return b, sort.Search(len(places), func(i int) bool { return places[i].score >= score })
}

// rank is how many stand before a score.
func (l *line) rank(score int64) int {
	if len(l.blocks) == 0 {
		return 0
	}
	b, i := l.find(score)
	return l.blocks[b].before + i
}

// Near remembers where the last booking was found in each of its queues, so
// that the next one is found at once when it stands behind it. The zero value
// remembers nothing.
type Near struct {
	found [4]struct {
		line *line
		b, i int
	}
}

// rankNear is rank for the n-th queue of a booking.
func (l *line) rankNear(score int64, near *Near, n int) int {
	if n >= len(near.found) {
		return l.rank(score)
	}
	f := &near.found[n]
	b, i := f.b, f.i+1
	if f.line == l && i == len(l.blocks[b].places) {
		b, i = b+1, 0
	}
	if f.line != l || b == len(l.blocks) || l.blocks[b].places[i].score != score {
		if len(l.blocks) == 0 {
			return 0
		}
		b, i = l.find(score)
	}
	f.line, f.b, f.i = l, b, i
	return l.blocks[b].before + i
}

func (l *line) insert(w *Waiter) {
	if len(l.blocks) == 0 {
		l.blocks = []block{{places: []place{{w.Score, w}}}}
		return
	}
	b, i := l.find(w.Score)
	full := &l.blocks[b]
	full.places = slices.Insert(full.places, i, place{w.Score, w})
	if n := len(full.places); n > maxBlock {
		rest := slices.Clone(full.places[n/2:])
		clear(full.places[n/2:])
		full.places = full.places[:n/2]
		l.blocks = slices.Insert(l.blocks, b+1, block{places: rest})
	}
	l.count(b)
}

// remove takes out the waiter with a score, if there is one.
func (l *line) remove(score int64) {
	if len(l.blocks) == 0 {
		return
	}
	b, i := l.find(score)
	places := l.blocks[b].places
	if i == len(places) || places[i].score != score {
		return
	}
	l.blocks[b].places = slices.Delete(places, i, i+1)
	// Small neighbours become one, so that the blocks stay few.
	if b+1 < len(l.blocks) && len(places)-1+len(l.blocks[b+1].places) <= maxBlock/2 {
		l.blocks[b].places = append(l.blocks[b].places, l.blocks[b+1].places...)
		l.blocks = slices.Delete(l.blocks, b+1, b+2)
	}
	if len(l.blocks[b].places) == 0 {
		l.blocks = slices.Delete(l.blocks, b, b+1)
	}
	l.count(b)
}

// count brings what stands before each block up to date, from one block on.
func (l *line) count(from int) {
	for b := from; b < len(l.blocks); b++ {
		if b == 0 {
			l.blocks[b].before = 0
			continue
		}
		l.blocks[b].before = l.blocks[b-1].before + len(l.blocks[b-1].places)
	}
}

// first returns the waiters at the head, n at most.
func (l *line) first(n int) []*Waiter {
	head := make([]*Waiter, 0, min(n, l.len()))
	for i := range l.blocks {
		for _, p := range l.blocks[i].places {
			if len(head) == n {
				return head
			}
			head = append(head, p.waiter)
		}
	}
	return head
}
