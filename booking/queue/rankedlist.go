package queue

import (
	"slices"
	"sort"
)

// maxBlock bounds the entries of a block.
const maxBlock = 512

// rankedList is one queue in order. It consists of blocks that know how many entries
// are before them: a change moves the entries of one block only, and a rank takes two
// binary searches, however long the queue is.
type rankedList struct {
	blocks []block
}

type block struct {
	before int // places in the blocks before this one
	places []rank
}

type rank struct {
	score  int64
	waiter *Waiter
}

// newRankedList makes a list of waiters that are in the order of their scores.
func newRankedList(sorted []*Waiter) rankedList {
	l := rankedList{}
	for chunk := range slices.Chunk(sorted, maxBlock/2) {
		places := make([]rank, len(chunk), maxBlock)
		for i, w := range chunk {
			places[i] = rank{w.Score, w}
		}
		l.blocks = append(l.blocks, block{places: places})
	}
	l.count(0)
	return l
}

func (l *rankedList) len() int {
	if len(l.blocks) == 0 {
		return 0
	}
	last := &l.blocks[len(l.blocks)-1]
	return last.before + len(last.places)
}

// find returns the block and the index at which a score is or would be.
func (l *rankedList) find(score int64) (b, i int) {
	b = sort.Search(len(l.blocks), func(b int) bool { return l.blocks[b].places[0].score > score }) - 1
	if b < 0 {
		return 0, 0
	}
	places := l.blocks[b].places
	return b, sort.Search(len(places), func(i int) bool { return places[i].score >= score })
}

// rank returns how many entries are before a score.
func (l *rankedList) rank(score int64) int {
	if len(l.blocks) == 0 {
		return 0
	}
	b, i := l.find(score)
	return l.blocks[b].before + i
}

// Cursor remembers where the last booking was found in each of its queues, so that
// the next one behind it is found at once. The zero value is ready to use.
type Cursor struct {
	found [4]struct {
		line *rankedList
		b, i int
	}
}

// rankFrom is rank for the n-th queue of a booking.
func (l *rankedList) rankFrom(score int64, near *Cursor, n int) int {
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

func (l *rankedList) insert(w *Waiter) {
	if len(l.blocks) == 0 {
		l.blocks = []block{{places: []rank{{w.Score, w}}}}
		return
	}
	b, i := l.find(w.Score)
	full := &l.blocks[b]
	full.places = slices.Insert(full.places, i, rank{w.Score, w})
	if n := len(full.places); n > maxBlock {
		rest := slices.Clone(full.places[n/2:])
		clear(full.places[n/2:])
		full.places = full.places[:n/2]
		l.blocks = slices.Insert(l.blocks, b+1, block{places: rest})
	}
	l.count(b)
}

// remove removes the waiter with a score, if there is one.
func (l *rankedList) remove(score int64) {
	if len(l.blocks) == 0 {
		return
	}
	b, i := l.find(score)
	places := l.blocks[b].places
	if i == len(places) || places[i].score != score {
		return
	}
	l.blocks[b].places = slices.Delete(places, i, i+1)
	// Small neighbours are merged, so that the blocks stay few.
	if b+1 < len(l.blocks) && len(places)-1+len(l.blocks[b+1].places) <= maxBlock/2 {
		l.blocks[b].places = append(l.blocks[b].places, l.blocks[b+1].places...)
		l.blocks = slices.Delete(l.blocks, b+1, b+2)
	}
	if len(l.blocks[b].places) == 0 {
		l.blocks = slices.Delete(l.blocks, b, b+1)
	}
	l.count(b)
}

// count updates the number of entries before each block, from one block on.
func (l *rankedList) count(from int) {
	for b := from; b < len(l.blocks); b++ {
		if b == 0 {
			l.blocks[b].before = 0
			continue
		}
		l.blocks[b].before = l.blocks[b-1].before + len(l.blocks[b-1].places)
	}
}

// first returns the first n waiters.
func (l *rankedList) first(n int) []*Waiter {
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
