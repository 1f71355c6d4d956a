package queue

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestALineIsASortedList plays changes on a line and on a plain sorted slice,
// and asks both who stands where.
func TestALineIsASortedList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, start := range []int{0, 1, maxBlock / 2, 5 * maxBlock} {
		var plain []*Waiter
		for i := range start {
			plain = append(plain, &Waiter{Score: int64(3 * i)})
		}
		line := newRankedList(plain)
		l := &line
		find := func(score int64) (int, bool) {
			return slices.BinarySearchFunc(plain, score, func(w *Waiter, score int64) int { return cmp.Compare(w.Score, score) })
		}
		for step := range 20_000 {
			score := random.Int64N(4 * maxBlock * 4)
			if step%3 == 0 && len(plain) > 0 { // leave from the head, as visits do
				score = plain[0].Score
			}
			if step/5000%2 == 0 { // a while of growing, then one of shrinking
				score += random.Int64N(2) * int64(step)
			}
			i, there := find(score)
			switch {
			case there && step/5000%2 == 1 || there && step%3 == 0:
				plain = slices.Delete(plain, i, i+1)
				l.remove(score)
			case !there && step/5000%2 == 0:
				w := &Waiter{Score: score}
				plain = slices.Insert(plain, i, w)
				l.insert(w)
			default:
				l.remove(-1) // nobody
			}
			require.Equal(t, len(plain), l.len())
			ask := random.Int64N(5 * maxBlock * 4)
			want, _ := find(ask)
			require.Equal(t, want, l.rank(ask))
		}
		require.Equal(t, plain[:min(10, len(plain))], append([]*Waiter(nil), l.first(10)...))
		var near Cursor
		for i, w := range plain {
			require.Equal(t, i, l.rank(w.Score))
			require.Equal(t, i, l.rankFrom(w.Score, &near, 0))
			if i%7 == 0 { // and out of order
				require.Equal(t, i/2, l.rankFrom(plain[i/2].Score, &near, 0))
			}
		}
		require.Equal(t, len(plain), l.rankFrom(1<<40, &near, 0), "behind the last")
		require.LessOrEqual(t, len(l.blocks), 2+4*len(plain)/maxBlock, "blocks stay few")
		for _, b := range l.blocks {
			require.NotEmpty(t, b.places)
			require.LessOrEqual(t, len(b.places), maxBlock)
		}
	}
}

// BenchmarkLine measures a head that leaves, a booking that joins and the new
// rank of ten others, in queues of different lengths.
func BenchmarkLine(b *testing.B) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		b.Run(map[int]string{100: "100", 10_000: "10k", 1_000_000: "1M"}[n], func(b *testing.B) {
			waiters := make([]*Waiter, n)
			for i := range waiters {
				waiters[i] = &Waiter{Score: int64(i)}
			}
			line := newRankedList(waiters)
			l := &line
			head, tail := int64(0), int64(n)
			for b.Loop() {
				l.remove(head)
				l.insert(&Waiter{Score: tail})
				head, tail = head+1, tail+1
				for i := range int64(10) {
					if l.rank(head+i*int64(n)/10) != int(i*int64(n)/10) {
						b.Fatal("wrong rank")
					}
				}
			}
		})
	}
}
