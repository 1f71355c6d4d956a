package queue

import (
	"context"
	"crypto/rand"
	_ "embed" // for the scripts
	"errors"
	"fmt"
	"iter"
	"time"

	"nowserving/booking/clock"
)

var (
	//go:embed begin.lua
	beginSource string
	//go:embed fill.lua
	fillSource string
	//go:embed finish.lua
	finishSource string
)

const (
	// builderLife is how long a builder may be silent before another node
	// begins in its place.
	builderLife = 3 * time.Second
	// builderPause is how often the others look whether the builder is done.
	builderPause = 20 * time.Millisecond
	// maxFill bounds the bookings of one piece, and maxPlaces the places in
	// queues they take: a piece keeps Redis busy for some milliseconds.
	maxFill   = 500
	maxPlaces = 2500
	// smallIndex is how many bookings may wait in an index that the change
	// which finds it lost rebuilds itself.
	smallIndex = 1000
)

// Rebuild builds the index from the database, unless it is complete. One node builds
// it, in pieces, and the others wait. Changes that are committed meanwhile are applied,
// too.
func (ix *Index) Rebuild(ctx context.Context, organizationID string) error {
	if err := ix.build(ctx, organizationID, ""); err != nil {
		return fmt.Errorf("rebuild the queue index: %w", err)
	}
	return nil
}

// rebuildSmall rebuilds an index that takes little time.
func (ix *Index) rebuildSmall(ctx context.Context, organizationID string) error {
	sum, err := ix.source.Sum(ctx, organizationID)
	if err != nil {
		return err
	}
	if sum.Waiting > smallIndex {
		return ErrLost
	}
	return ix.Rebuild(ctx, organizationID)
}

// build returns when the index is whole. One of the epoch replaced is built
// again, which is faster than to change most of it.
func (ix *Index) build(ctx context.Context, organizationID, replaced string) error {
	publish, err := ix.publishCommand(ctx)
	if err != nil {
		return err
	}
	k := keysOf(organizationID)
	for ctx.Err() == nil {
		token := rand.Text()
		outcome, err := ix.begin.Run(ctx, ix.rdb, []string{k.state, k.members, k.queues, k.building},
			token, k.queue, k.channel, publish, builderLife.Milliseconds(), replaced).Text()
		if err != nil {
			return err
		}
		switch outcome {
		case "whole":
			return nil
		case "building":
			clock.Sleep(ctx, builderPause)
			continue
		case "begun":
		default:
			return fmt.Errorf("unknown outcome %q", outcome)
		}
		began := time.Now()
		built, waiting, err := ix.fillAll(ctx, organizationID, token)
		if err != nil {
			return err // the lock expires
		}
		if built {
			ix.rebuilds.Add(1)
			ix.log.Info("queue index rebuilt", "organization", organizationID, "waiting", waiting, "took", time.Since(began))
			return nil
		}
	}
	return ctx.Err()
}

// fillAll copies the waiting bookings into an index that has been begun. It
// returns false when another node has taken over.
func (ix *Index) fillAll(ctx context.Context, organizationID, token string) (built bool, waiting int, err error) {
	k := keysOf(organizationID)
	publish, err := ix.publishCommand(ctx)
	if err != nil {
		return false, 0, err
	}
	err = ix.source.Waiting(ctx, organizationID, func(entries []Entry) error {
		for piece := range pieces(entries) {
			args := make([]any, 0, 4+3*len(piece))
			args = append(args, token, k.queue, k.tombstone, builderLife.Milliseconds())
			for _, e := range piece {
				args = append(args, e.BookingID, e.Score, e.record())
			}
			mine, err := ix.fill.Run(ctx, ix.rdb, []string{k.state, k.members, k.queues, k.building}, args...).Bool()
			if err != nil {
				return err
			}
			if !mine {
				return errTakenOver
			}
		}
		waiting += len(entries)
		return nil
	})
	if errors.Is(err, errTakenOver) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	built, err = ix.finish.Run(ctx, ix.rdb, []string{k.state, k.building}, token, k.channel, publish).Bool()
	return built, waiting, err
}

var errTakenOver = errors.New("another node has begun to build the index")

// pieces cuts bookings into what one command may add.
func pieces(entries []Entry) iter.Seq[[]Entry] {
	return func(yield func([]Entry) bool) {
		for len(entries) > 0 {
			n, places := 0, 0
			for n < min(len(entries), maxFill) && (n == 0 || places < maxPlaces) {
				places += len(entries[n].Resources) + 1
				n++
			}
			if !yield(entries[:n]) {
				return
			}
			entries = entries[n:]
		}
	}
}
