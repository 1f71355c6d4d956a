package booking_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"nowserving/booking"
	"nowserving/booking/catalog"
	"nowserving/booking/files"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/models"
)

// Two patients join, and the doctor calls the next one.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	data, err := os.MkdirTemp("", "example")
	check(err)
	defer os.RemoveAll(data) //nolint:errcheck // of an example
	db, err := store.Open(ctx, store.Options{DataDir: data, Now: time.Now, Log: quiet})
	check(err)
	defer db.Close() //nolint:errcheck // of an example
	_, err = db.Prepare(ctx)
	check(err)
	rdb, closeRedis, err := store.OpenRedis("") // inside this process
	check(err)
	defer closeRedis() //nolint:errcheck // of an example
	index := queue.NewIndex(rdb, booking.NewSource(db), quiet)
	mirrors := queue.NewMirrors(index, time.Now, quiet)
	running, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); mirrors.Run(running) }()
	defer func() { stop(); <-done }()
	<-mirrors.Up()
	catalogue := catalog.New(db)
	catalogue.OnChange(func(ctx context.Context, id string) { check(index.Rematch(ctx, id)) })
	uploads, err := files.New(ctx, files.Options{Store: db, URL: "mem://", PublicURL: "https://clinic.example", Log: quiet})
	check(err)
	defer uploads.Close() //nolint:errcheck // of an example
	bookings := booking.New(db, catalogue, index, mirrors, uploads, quiet)

	clinic := &models.Organization{Name: "Al Noor", Timezone: "Asia/Riyadh"}
	check(catalogue.CreateOrganization(ctx, clinic))
	kind := &models.BookingType{OrganizationID: clinic.ID, Name: "Consultation", Minutes: 10, On: true}
	check(catalogue.CreateType(ctx, kind))
	room, err := catalogue.CreateResource(ctx, clinic.ID, func(_ *store.Tx, r *models.Resource) error {
		r.Name, r.TypeIDs = "Room 1", []string{kind.ID}
		return nil
	})
	check(err)

	walkIn := func(tx *store.Tx) (*models.Customer, error) {
		c := &models.Customer{ID: models.NewID(), OrganizationID: clinic.ID, CreatedAt: tx.Now, UpdatedAt: tx.Now}
		return c, tx.Create(c).Error
	}
	for range 2 {
		b, place, err := bookings.Join(ctx, clinic.ID, booking.Join{TypeID: kind.ID, Customer: walkIn, By: models.ActorStaff})
		check(err)
		fmt.Println(b.Ticket, b.Stage, place.Position)
	}
	called, err := bookings.Next(ctx, booking.Scope{OrganizationID: clinic.ID}, room.ID)
	check(err)
	fmt.Println(called.Ticket, called.Stage)
	// Output:
	// A001 WAITING 1
	// A002 WAITING 2
	// A001 CALLED
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
