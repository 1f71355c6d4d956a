package loadtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"net/http"
	"sync"
	"time"

	"nowserving/loadtest/client"
)

// DoctorPhone is the phone number with which the doctor of a demo clinic signs
// in: the room that nobody plays.
const DoctorPhone = "+966500000100"

// Clinic is a seeded clinic on a running server that lives a simulated day:
// patients come and doctors take them, all through the public API. One room is
// left to whoever watches.
type Clinic struct {
	OrganizationID string
	// DisplayPath is the path of the waiting-room screen, with its token.
	DisplayPath string

	api   *client.API
	speed float64
	log   *slog.Logger
	types []string
	rooms []room
}

// room is a resource that is played.
type room struct {
	id      string
	minutes float64 // of a visit, on average
}

// offer is a type of the clinic and how many of a hundred patients want it.
type offer struct {
	name, nameAr string
	minutes      int
	share        int
}

var offers = []offer{
	{"General consultation", "استشارة عامة", 10, 50},
	{"Laboratory", "المختبر", 5, 30},
	{"Pharmacy", "الصيدلية", 3, 20},
}

// roomPlan names the resources, the index of the offer each serves, and whether
// it is played.
var roomPlan = []struct {
	name, nameAr string
	service      int
	played       bool
}{
	{"Dr. Sara, room 1", "د. سارة، غرفة ١", 0, true},
	{"Dr. Omar, room 2", "د. عمر، غرفة ٢", 0, true},
	{"Dr. Layla, room 3", "د. ليلى، غرفة ٣", 0, false},
	{"Laboratory 1", "المختبر ١", 1, true},
	{"Pharmacy counter", "شباك الصيدلية", 2, true},
}

var (
	firstNames = []string{"Amal", "Bilal", "Dana", "Faisal", "Huda", "Ibrahim", "Jana", "Khalid", "Lina", "Maha", "Nasser", "Reem", "Salman", "Yara", "Ziad"}
	lastNames  = []string{"Al-Harbi", "Al-Qahtani", "Haddad", "Khoury", "Mansour", "Nasser", "Rahman", "Saleh"}
)

const (
	// arrivalEvery is the mean time between two patients, in simulated minutes.
	arrivalEvery = 2.6
	// maxWaiting keeps the demo's waiting room from overflowing.
	maxWaiting = 40
	// noShows of a hundred called patients do not come.
	noShows = 6
)

// OpenClinic makes the clinic's organization, services, rooms and screen.
// speed is how many simulated minutes pass in a real one.
func OpenClinic(ctx context.Context, url, key string, speed float64, log *slog.Logger) (*Clinic, error) {
	if speed <= 0 {
		return nil, errors.New("the speed of a simulated day is larger than 0")
	}
	c := &Clinic{api: client.NewAPI([]string{url}, key, client.NewRequestStats()), speed: speed, log: log}
	var org client.Envelope[client.Created]
	err := c.api.Call(ctx, "create organization", http.MethodPost, "/management/organizations",
		map[string]any{"name": "Al Noor Clinic", "timezone": "Asia/Riyadh"}, &org, false)
	if err != nil {
		return nil, err
	}
	c.OrganizationID, c.api.Tenant = org.Result.ID, org.Result.ID
	for _, s := range offers {
		var t client.Envelope[client.Created]
		err := c.api.Call(ctx, "create type", http.MethodPost, "/management/types", map[string]any{
			"name": s.name, "name_translations": map[string]string{"en": s.name, "ar": s.nameAr},
			"minutes": s.minutes, "on": true, "bookFromWebsite": true,
		}, &t, false)
		if err != nil {
			return nil, err
		}
		c.types = append(c.types, t.Result.ID)
	}
	for _, plan := range roomPlan {
		body := map[string]any{
			"name": plan.name, "name_translations": map[string]string{"en": plan.name, "ar": plan.nameAr},
			"on": true, "activated": true, "bookFromWebsite": true, "types": []string{c.types[plan.service]},
		}
		if !plan.played {
			body["providerPhone"] = DoctorPhone
		}
		var r client.Envelope[client.Created]
		if err := c.api.Call(ctx, "create resource", http.MethodPost, "/management/resources", body, &r, false); err != nil {
			return nil, err
		}
		if plan.played {
			c.rooms = append(c.rooms, room{r.Result.ID, float64(offers[plan.service].minutes)})
		}
	}
	var display client.Envelope[struct {
		ID    string `json:"id"`
		Token string `json:"token"`
	}]
	err = c.api.Call(ctx, "create display", http.MethodPost, "/management/displays", map[string]any{"name": "Waiting room"}, &display, false)
	if err != nil {
		return nil, err
	}
	c.DisplayPath = "/display/" + display.Result.ID + "#" + display.Result.Token
	return c, nil
}

// Live lets patients come and doctors work until ctx ends.
func (c *Clinic) Live(ctx context.Context) {
	defer c.api.Close()
	var wg sync.WaitGroup
	wg.Go(func() { c.arrivals(ctx) })
	for _, r := range c.rooms {
		wg.Go(func() { c.work(ctx, r) })
	}
	wg.Wait()
}

// minutes waits for simulated minutes; it returns false when ctx ends.
func (c *Clinic) minutes(ctx context.Context, n float64) bool {
	return client.Pause(ctx, time.Duration(n/c.speed*float64(time.Minute))) == nil
}

func (c *Clinic) arrivals(ctx context.Context) {
	opened := time.Now()
	for range 6 { // the first were there before the doors opened
		c.arrive(ctx)
	}
	for {
		// Two waves a day: a morning and an afternoon, the rest is quieter.
		hours := time.Since(opened).Hours() * c.speed
		wave := 1 + 0.5*math.Sin(hours*math.Pi/2)
		if !c.minutes(ctx, mathrand.ExpFloat64()*arrivalEvery/wave) { //nolint:gosec // a play, not a secret
			return
		}
		c.arrive(ctx)
	}
}

func (c *Clinic) arrive(ctx context.Context) {
	var waiting client.Envelope[[]struct {
		PendingCount int `json:"pendingCount"`
	}]
	if err := c.api.Call(ctx, "count who waits", http.MethodPost, "/availability/types", map[string]any{}, &waiting, false); err != nil {
		c.say(ctx, err)
		return
	}
	total := 0
	for _, t := range waiting.Result {
		total += t.PendingCount
	}
	if total >= maxWaiting {
		return
	}
	priority := 0
	if mathrand.IntN(25) == 0 { //nolint:gosec // a play, not a secret
		priority = 10
	}
	c.say(ctx, c.api.Call(ctx, "join", http.MethodPut, "/management/scheduling/new", map[string]any{
		"type": c.types[pick()], "assign": false, "priority": priority,
		"customerIdentifier": map[string]string{
			"firstName": firstNames[mathrand.IntN(len(firstNames))], //nolint:gosec // a play, not a secret
			"lastName":  lastNames[mathrand.IntN(len(lastNames))],   //nolint:gosec // a play, not a secret
		},
	}, nil, false))
}

// pick chooses a service by its share.
func pick() int {
	n := mathrand.IntN(100) //nolint:gosec // a play, not a secret
	for i, s := range offers {
		if n -= s.share; n < 0 {
			return i
		}
	}
	return 0
}

// work is one doctor's day: take the next, wait for them to come, serve, end.
func (c *Clinic) work(ctx context.Context, r room) {
	for ctx.Err() == nil {
		var next client.Envelope[client.Booking]
		err := c.api.Call(ctx, "take the next", http.MethodPost, "/management/queue/next", map[string]string{"resourceId": r.id}, &next, false)
		if no, ok := errors.AsType[*client.RefusalError](err); ok && no.Code == "QUE-EMPTY" {
			err = nil
		}
		if err != nil || next.Result.ID == "" {
			c.say(ctx, err)
			if !c.minutes(ctx, 1) {
				return
			}
			continue
		}
		if !c.minutes(ctx, 0.5+mathrand.Float64()) { //nolint:gosec // a play, not a secret
			return
		}
		body := map[string]string{"bookingId": next.Result.ID}
		if mathrand.IntN(100) < noShows { //nolint:gosec // a play, not a secret
			c.say(ctx, c.api.Call(ctx, "no-show", http.MethodPost, "/management/bookings/noShow", body, nil, true))
			continue
		}
		c.say(ctx, c.api.Call(ctx, "start", http.MethodPost, "/management/bookings/start", body, nil, true))
		if !c.minutes(ctx, r.minutes*math.Exp(mathrand.NormFloat64()*0.4)*0.9) { //nolint:gosec // a play, not a secret
			return
		}
		c.say(ctx, c.api.Call(ctx, "end", http.MethodPost, "/management/bookings/end", body, nil, true))
	}
}

// say reports what went wrong and lets the day go on: somebody who watches may
// have changed the same booking.
func (c *Clinic) say(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		c.log.Warn("the simulated day", "error", fmt.Sprint(err))
	}
}
