package queue_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/models"
)

// A score orders by priority and then by join sequence.
func ExampleScore() {
	routine, later, urgent := queue.Score(0, 1), queue.Score(0, 2), queue.Score(10, 3)
	fmt.Println(urgent < routine, routine < later)
	fmt.Println(queue.PlaceOf(urgent))
	// Output:
	// true true
	// 10 3
}

// nobody implements the database of an organization whose queues are empty.
type nobody struct{}

func (nobody) Waiting(context.Context, string, func([]queue.Entry) error) error { return nil }

func (nobody) Lookup(context.Context, string, []string) ([]queue.Entry, map[string]int64, error) {
	return nil, nil, nil
}

func (nobody) Sum(context.Context, string) (queue.Sum, error) { return queue.Sum{}, nil }

// A mirror shows an organization's queues. It follows the changes that any node
// makes in the index.
func ExampleMirror() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	rdb, closeRedis, err := store.OpenRedis("") // inside this process
	if err != nil {
		panic(err)
	}
	index := queue.NewIndex(rdb, nobody{}, slog.New(slog.DiscardHandler))
	mirrors := queue.NewMirrors(index, time.Now, slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	go func() { defer close(done); mirrors.Run(ctx) }()
	defer func() { cancel(); <-done; _ = closeRedis() }()
	<-mirrors.Up()
	mirrors.Get(ctx, "clinic") // until it is fresh

	for i, id := range []string{"mona", "sara"} {
		at, err := index.Put(ctx, "clinic", queue.Entry{
			BookingID: id, Version: 1, Score: queue.Score(0, int64(i+1)), TypeID: "consultation", Resources: []string{"room-1"},
		}, nil)
		if err != nil {
			panic(err)
		}
		mirror, current := mirrors.At(ctx, "clinic", at)
		position, waits := mirror.Position(id)
		fmt.Println(id, position, waits, current)
	}
	event := &models.BookingEvent{Type: models.EventAssigned, BookingID: "mona", Version: 2}
	at, err := index.Remove(ctx, "clinic", "mona", 2, event)
	if err != nil {
		panic(err)
	}
	mirror, _ := mirrors.At(ctx, "clinic", at)
	fmt.Println(mirror.Position("sara"))
	// Output:
	// mona 1 true true
	// sara 2 true true
	// 1 true
}
