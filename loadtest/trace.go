package loadtest

import (
	"bytes"
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Visit is one recorded visit of a patient.
type Visit struct {
	ID      string
	Service string
	Arrived time.Time
	// Called is zero if the patient left without being served.
	Called time.Time
	// Completed is zero if no end was recorded. The visit then ends right after the call.
	Completed time.Time
}

// Trace is a list of visits in order of arrival.
type Trace struct {
	Name   string
	Visits []Visit
}

// traceLayout is the format of times in a trace: local time without a zone.
const traceLayout = "2006-01-02T15:04:05"

// dayLayout is the format of days in flags and reports.
const dayLayout = time.DateOnly

// maxVisits bounds the memory of a trace.
const maxVisits = 1_000_000

var traceHeader = []string{"visit", "service", "arrived_at", "called_at", "completed_at"}

//go:embed traces/small.csv
var smallTrace []byte

// SmallTrace returns the generated day that is embedded in the package.
func SmallTrace() (*Trace, error) {
	return ReadTrace("small.csv", bytes.NewReader(smallTrace))
}

// OpenTrace reads a trace from a file.
func OpenTrace(path string) (*Trace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	t, err := ReadTrace(path, f)
	if closeErr := f.Close(); err == nil && closeErr != nil {
		return nil, fmt.Errorf("close trace: %w", closeErr)
	}
	return t, err
}

// ReadTrace reads a trace in CSV. Anything that is not a visit is an error that names the
// line, because the server would be blamed for a wrong trace.
func ReadTrace(name string, r io.Reader) (*Trace, error) {
	rows := csv.NewReader(r)
	rows.FieldsPerRecord = -1
	rows.ReuseRecord = true

	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: empty, want the header %s", name, strings.Join(traceHeader, ","))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if !slices.Equal(header, traceHeader) {
		return nil, fmt.Errorf("%s: line 1: header is %q, want %q", name, strings.Join(header, ","), strings.Join(traceHeader, ","))
	}

	t := &Trace{Name: name}
	lines := map[string]int{}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		waiting, _ := rows.FieldPos(0)
		v, err := parseVisit(row)
		if err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", name, waiting, err)
		}
		if first, seen := lines[v.ID]; seen {
			return nil, fmt.Errorf("%s: line %d: visit %q is already on line %d", name, waiting, v.ID, first)
		}
		if len(t.Visits) == maxVisits {
			return nil, fmt.Errorf("%s: line %d: more than %d visits", name, waiting, maxVisits)
		}
		lines[v.ID] = waiting
		t.Visits = append(t.Visits, v)
	}
	if len(t.Visits) == 0 {
		return nil, fmt.Errorf("%s: no visits", name)
	}
	slices.SortStableFunc(t.Visits, func(a, b Visit) int { return a.Arrived.Compare(b.Arrived) })
	return t, nil
}

func parseVisit(row []string) (Visit, error) {
	if len(row) != len(traceHeader) {
		return Visit{}, fmt.Errorf("%d columns, want %d", len(row), len(traceHeader))
	}
	v := Visit{ID: strings.Clone(row[0]), Service: strings.Clone(row[1])}
	if v.ID == "" {
		return Visit{}, errors.New("visit is empty")
	}
	if v.Service == "" {
		return Visit{}, errors.New("service is empty")
	}
	for i, moment := range []*time.Time{&v.Arrived, &v.Called, &v.Completed} {
		column := traceHeader[2+i]
		if row[2+i] == "" {
			if i == 0 {
				return Visit{}, fmt.Errorf("%s is empty", column)
			}
			continue
		}
		at, err := time.Parse(traceLayout, row[2+i])
		if err != nil {
			return Visit{}, fmt.Errorf("%s: %q is not a moment like 2019-11-01T08:00:37", column, row[2+i])
		}
		*moment = at
	}
	switch {
	case v.Called.IsZero() && !v.Completed.IsZero():
		return Visit{}, errors.New("completed_at without called_at")
	case !v.Called.IsZero() && v.Called.Before(v.Arrived):
		return Visit{}, errors.New("called_at is before arrived_at")
	case !v.Completed.IsZero() && v.Completed.Before(v.Called):
		return Visit{}, errors.New("completed_at is before called_at")
	}
	return v, nil
}

// Write writes the trace in the format of ReadTrace.
func (t *Trace) Write(w io.Writer) error {
	rows := csv.NewWriter(w)
	if err := rows.Write(traceHeader); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	moment := func(at time.Time) string {
		if at.IsZero() {
			return ""
		}
		return at.Format(traceLayout)
	}
	for _, v := range t.Visits {
		row := []string{v.ID, v.Service, moment(v.Arrived), moment(v.Called), moment(v.Completed)}
		if err := rows.Write(row); err != nil {
			return fmt.Errorf("write trace: %w", err)
		}
	}
	rows.Flush()
	if err := rows.Error(); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

// Days returns the days with arrivals, in order.
func (t *Trace) Days() []string {
	var days []string
	for _, v := range t.Visits {
		if day := v.Arrived.Format(dayLayout); len(days) == 0 || days[len(days)-1] != day {
			days = append(days, day)
		}
	}
	return days
}

// day returns the visits that arrived on one day. They are adjacent because arrivals are
// sorted.
func (t *Trace) day(day string) []Visit {
	from := slices.IndexFunc(t.Visits, func(v Visit) bool { return v.Arrived.Format(dayLayout) == day })
	if from < 0 {
		return nil
	}
	to := from
	for to < len(t.Visits) && t.Visits[to].Arrived.Format(dayLayout) == day {
		to++
	}
	return t.Visits[from:to]
}

// pick returns the selected days: the first if choice is empty, all for "all".
func (t *Trace) pick(choice string) ([]string, error) {
	days := t.Days()
	switch {
	case choice == "":
		return days[:1], nil
	case choice == "all":
		return days, nil
	case slices.Contains(days, choice):
		return []string{choice}, nil
	}
	return nil, fmt.Errorf("no arrivals on %q: the days of %s are %s", choice, t.Name, strings.Join(days, ", "))
}

// servicePlan is what the server needs for one service of a trace.
type servicePlan struct {
	name string
	// resources is the largest number of visits served at once.
	resources int
	// minutes is the median service time, rounded up.
	minutes int
}

// plan returns the services of some days, in the order in which they first appear.
func (t *Trace) plan(days []string, maxResources int) []servicePlan {
	type edge struct {
		at    time.Time
		delta int
	}
	var names []string
	busy := map[string][]edge{}
	served := map[string][]time.Duration{}
	for _, day := range days {
		for _, v := range t.day(day) {
			if _, known := busy[v.Service]; !known {
				names = append(names, v.Service)
				busy[v.Service] = nil
			}
			if v.Completed.IsZero() {
				continue
			}
			busy[v.Service] = append(busy[v.Service], edge{v.Called, 1}, edge{v.Completed, -1})
			served[v.Service] = append(served[v.Service], v.Completed.Sub(v.Called))
		}
	}
	plans := make([]servicePlan, 0, len(names))
	for _, name := range names {
		edges := busy[name]
		// Calls sort before ends of the same second, because the two overlap for a moment in a
		// fast replay.
		slices.SortStableFunc(edges, func(a, b edge) int {
			if c := a.at.Compare(b.at); c != 0 {
				return c
			}
			return b.delta - a.delta
		})
		now, most := 0, 1
		for _, e := range edges {
			now += e.delta
			most = max(most, now)
		}
		minutes := 1
		if times := served[name]; len(times) > 0 {
			slices.Sort(times)
			middle := times[len(times)/2]
			minutes = max(1, int((middle+time.Minute-1)/time.Minute))
		}
		plans = append(plans, servicePlan{name: name, resources: min(most, maxResources), minutes: minutes})
	}
	return plans
}
