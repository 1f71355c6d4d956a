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

// DoctorPhone is the phone number with which the doctor of the unsimulated room of a demo
// clinic signs in.
const DoctorPhone = "+966500000100"

// Clinic is a seeded clinic on a running server with a simulated day: patients arrive and
// doctors serve them, all through the public API. One room is not simulated, so that the user
// can serve it.
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

// room is a simulated resource.
type room struct {
	id      string
	minutes float64 // average minutes of a visit
}

// clinicService is a booking type of the clinic. share is the percentage of patients who want
// it.
type clinicService struct {
	name, nameAr string
	minutes      int
	share        int
}

var clinicServices = []clinicService{
	{"General consultation", "استشارة عامة", 10, 50},
	{"Laboratory", "المختبر", 5, 30},
	{"Pharmacy", "الصيدلية", 3, 20},
}

// roomPlan has the resources, the index of the service of each, and whether it is simulated.
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
	// arrivalMinutes is the mean time between two arrivals, in simulated minutes.
	arrivalMinutes = 2.6
	// maxWaiting is the number of waiting patients at which arrivals pause.
	maxWaiting = 40
	// noShowPercent is the percentage of called patients who do not come.
	noShowPercent = 6
)

// OpenClinic creates the clinic's organization, services, rooms, screen, hours and appointments. speed is the
// number of simulated minutes in a real one.
func OpenClinic(ctx context.Context, url, key string, speed float64, log *slog.Logger) (*Clinic, error) {
	if speed <= 0 {
		return nil, errors.New("the speed of a simulated day must be more than zero")
	}
	c := &Clinic{api: client.NewAPI([]string{url}, key, client.NewRequestStats()), speed: speed, log: log}
	var org client.Envelope[client.Created]
	err := c.api.Call(ctx, "create organization", http.MethodPost, "/management/organizations",
		map[string]any{"name": "Al Noor Clinic", "timezone": "Asia/Riyadh"}, &org, false)
	if err != nil {
		return nil, err
	}
	c.OrganizationID, c.api.Tenant = org.Result.ID, org.Result.ID
	for _, s := range clinicServices {
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
	specialist := ""
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
			c.rooms = append(c.rooms, room{r.Result.ID, float64(clinicServices[plan.service].minutes)})
		} else {
			specialist = r.Result.ID
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
	return c, c.openCalendar(ctx, specialist)
}

// Live simulates arrivals and doctors until ctx ends.
func (c *Clinic) Live(ctx context.Context) {
	defer c.api.Close()
	var wg sync.WaitGroup
	wg.Go(func() { c.arrivals(ctx) })
	for _, r := range c.rooms {
		wg.Go(func() { c.work(ctx, r) })
	}
	wg.Wait()
}

// minutes waits for simulated minutes. It returns false if ctx ends.
func (c *Clinic) minutes(ctx context.Context, n float64) bool {
	return client.Pause(ctx, time.Duration(n/c.speed*float64(time.Minute))) == nil
}

func (c *Clinic) arrivals(ctx context.Context) {
	opened := time.Now()
	for range 6 { // patients who arrived before opening
		c.arrive(ctx)
	}
	for {
		// Arrivals peak in the morning and in the afternoon.
		hours := time.Since(opened).Hours() * c.speed
		wave := 1 + 0.5*math.Sin(hours*math.Pi/2)
		if !c.minutes(ctx, mathrand.ExpFloat64()*arrivalMinutes/wave) { //nolint:gosec // simulation, not a secret
			return
		}
		c.arrive(ctx)
	}
}

func (c *Clinic) arrive(ctx context.Context) {
	var waiting client.Envelope[[]struct {
		PendingCount int `json:"pendingCount"`
	}]
	if err := c.api.Call(ctx, "count waiting patients", http.MethodPost, "/availability/types", map[string]any{}, &waiting, false); err != nil {
		c.logError(ctx, err)
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
	if mathrand.IntN(25) == 0 { //nolint:gosec // simulation, not a secret
		priority = 10
	}
	c.logError(ctx, c.api.Call(ctx, "join", http.MethodPut, "/management/scheduling/new", map[string]any{
		"type": c.types[pick()], "assign": false, "priority": priority,
		"customerIdentifier": map[string]string{
			"firstName": firstNames[mathrand.IntN(len(firstNames))], //nolint:gosec // simulation, not a secret
			"lastName":  lastNames[mathrand.IntN(len(lastNames))],   //nolint:gosec // simulation, not a secret
		},
	}, nil, false))
}

// pick returns a random service by its share.
func pick() int {
	n := mathrand.IntN(100) //nolint:gosec // simulation, not a secret
	for i, s := range clinicServices {
		if n -= s.share; n < 0 {
			return i
		}
	}
	return 0
}

// work simulates one doctor: take the next patient, wait for them, serve, end.
func (c *Clinic) work(ctx context.Context, r room) {
	for ctx.Err() == nil {
		var next client.Envelope[client.Booking]
		err := c.api.Call(ctx, "take the next", http.MethodPost, "/management/queue/next", map[string]string{"resourceId": r.id}, &next, false)
		if no, ok := errors.AsType[*client.RefusalError](err); ok && no.Code == "QUE-EMPTY" {
			err = nil
		}
		if err != nil || next.Result.ID == "" {
			c.logError(ctx, err)
			if !c.minutes(ctx, 1) {
				return
			}
			continue
		}
		if !c.minutes(ctx, 0.5+mathrand.Float64()) { //nolint:gosec // simulation, not a secret
			return
		}
		body := map[string]string{"bookingId": next.Result.ID}
		if mathrand.IntN(100) < noShowPercent { //nolint:gosec // simulation, not a secret
			c.logError(ctx, c.api.Call(ctx, "no-show", http.MethodPost, "/management/bookings/noShow", body, nil, true))
			continue
		}
		c.logError(ctx, c.api.Call(ctx, "start", http.MethodPost, "/management/bookings/start", body, nil, true))
		if !c.minutes(ctx, r.minutes*math.Exp(mathrand.NormFloat64()*0.4)*0.9) { //nolint:gosec // simulation, not a secret
			return
		}
		c.logError(ctx, c.api.Call(ctx, "end", http.MethodPost, "/management/bookings/end", body, nil, true))
	}
}

// logError logs an error and lets the day go on, because the user may have changed the same
// booking.
func (c *Clinic) logError(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		c.log.Warn("simulated day: request failed", "error", fmt.Sprint(err))
	}
}
