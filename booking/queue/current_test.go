package queue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// However many ask at once, each answer was given to a command sent after the
// question, and few commands are sent.
func TestACrowdSharesCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		q := newInquiry[StreamPosition](currentTimeout)
		var sent []time.Time
		read := func(context.Context) (StreamPosition, error) {
			at := time.Now()
			sent = append(sent, at) // one at a time, or the race detector tells
			<-time.After(10 * time.Millisecond)
			return StreamPosition{"e", int64(at.Sub(began))}, nil
		}
		var crowd sync.WaitGroup
		for i := range 100 {
			crowd.Go(func() {
				<-time.After(time.Duration(i) * time.Millisecond)
				asked := time.Since(began)
				at, err := q.ask(t.Context(), read)
				if err != nil || at.Version < int64(asked) {
					t.Errorf("asked at %v, answered %v, %v", asked, time.Duration(at.Version), err)
				}
			})
		}
		crowd.Wait()
		require.LessOrEqual(t, len(sent), 12)
	})
}

// Who asked first may go; the others are answered. When Redis is stuck, nobody
// is stuck with it, and the next question is asked anew.
func TestAnInquiryOutlivesWhoBeganIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newInquiry[StreamPosition](currentTimeout)
		stuck := func(ctx context.Context) (StreamPosition, error) {
			<-ctx.Done()
			return StreamPosition{}, ctx.Err()
		}
		var asking sync.WaitGroup
		asking.Go(func() {
			_, err := q.ask(t.Context(), stuck)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
		})
		synctest.Wait()
		gone, leave := context.WithCancel(t.Context())
		fine := func(context.Context) (StreamPosition, error) { return StreamPosition{"e", 7}, nil }
		asking.Go(func() { _, _ = q.ask(gone, fine) }) // waits for the stuck one
		synctest.Wait()
		asking.Go(func() {
			at, err := q.ask(t.Context(), fine)
			if err == nil && at.Version != 7 || err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v %v", at, err)
			}
		})
		synctest.Wait()
		leave()
		asking.Wait()
		at, err := q.ask(t.Context(), fine)
		require.NoError(t, err)
		require.Equal(t, StreamPosition{"e", 7}, at)
	})
}
