package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// Report is the outcome of a scenario. Every scenario has the same form, so that tables, JSON
// and pages of different runs can be compared.
type Report struct {
	Scenario    string    `json:"scenario"`
	Started     time.Time `json:"started"`
	Took        float64   `json:"tookSeconds"`
	Interrupted bool      `json:"interrupted"`
	OK          bool      `json:"ok"`
	Verdict     string    `json:"verdict"`

	Settings []Setting `json:"settings"`
	Figures  []Figure  `json:"figures"`
	Curves   []Curve   `json:"curves"`
	Series   []Series  `json:"series"`
	Marks    []Mark    `json:"marks"`

	// Faults is nil if the scenario does not check what clients receive.
	Faults   *Faults   `json:"faults"`
	Problems []Problem `json:"problems"`
}

// Setting is one parameter of a run.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Figure is one number that was measured or counted.
type Figure struct {
	Group string  `json:"group,omitempty"` // figures of one group are printed together
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	Note  string  `json:"note,omitempty"`
	// Headline shows the figure large at the top of the page.
	Headline bool `json:"headline,omitempty"`
	// AtMost and AtLeast are goals; zero means no goal. A missed goal fails the run.
	AtMost  float64 `json:"atMost,omitempty"`
	AtLeast float64 `json:"atLeast,omitempty"`
}

// Met reports whether the figure meets its goal.
func (f Figure) Met() bool {
	return (f.AtMost == 0 || f.Value <= f.AtMost) && (f.AtLeast == 0 || f.Value >= f.AtLeast)
}

// Curve is the distribution of one measure.
type Curve struct {
	Chart string `json:"chart"` // curves of one chart are drawn together
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	Latency
	Points []CurvePoint `json:"points"`
}

// CurvePoint is the value that a percentage of the samples does not exceed.
type CurvePoint struct {
	Percentile float64 `json:"percentile"`
	Value      float64 `json:"value"`
}

// Series is one measure over the duration of the run.
type Series struct {
	Chart  string        `json:"chart"`
	Name   string        `json:"name"`
	Unit   string        `json:"unit"`
	Points []SeriesPoint `json:"points"`
}

// SeriesPoint is a value at a moment of the run.
type SeriesPoint struct {
	Second float64 `json:"second"`
	Value  float64 `json:"value"`
}

// Mark names a moment of the run, such as a restart.
type Mark struct {
	Second float64 `json:"second"`
	Text   string  `json:"text"`
}

// Latency summarizes a distribution, in the unit of its curve.
type Latency struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Problem describes one fault.
type Problem struct {
	Kind    string `json:"kind"`
	Booking string `json:"booking,omitempty"`
	Detail  string `json:"detail"`
}

// Faults counts the faults by kind.
type Faults struct {
	WrongPositions int64 `json:"wrongPositions"`
	WrongEstimates int64 `json:"wrongEstimates"`
	WrongNews      int64 `json:"wrongNews"`
	StaleSnapshots int64 `json:"staleSnapshots"`
	Missed         int64 `json:"missed"`
	Late           int64 `json:"late"`
	OutOfOrder     int64 `json:"outOfOrder"`
	Duplicates     int64 `json:"duplicates"`
	Malformed      int64 `json:"malformed"`
	FailedRequests int64 `json:"failedRequests"`
	RefusedClients int64 `json:"refusedClients"`
}

// rows returns the faults with their printed names.
func (f Faults) rows() []Figure {
	return []Figure{
		{Name: "wrong positions", Value: float64(f.WrongPositions)},
		{Name: "wrong estimates", Value: float64(f.WrongEstimates)},
		{Name: "wrong news", Value: float64(f.WrongNews)},
		{Name: "stale snapshots", Value: float64(f.StaleSnapshots)},
		{Name: "missed updates", Value: float64(f.Missed)},
		{Name: "late updates", Value: float64(f.Late)},
		{Name: "out of order", Value: float64(f.OutOfOrder)},
		{Name: "duplicates", Value: float64(f.Duplicates)},
		{Name: "malformed", Value: float64(f.Malformed)},
		{Name: "failed requests", Value: float64(f.FailedRequests)},
		{Name: "refused clients", Value: float64(f.RefusedClients)},
	}
}

// New returns an empty report of a scenario. Its lists are never nil, so that they are lists
// in JSON.
func New(scenario string, started time.Time) *Report {
	return &Report{
		Scenario: scenario,
		Started:  started.UTC().Truncate(time.Second),
		Took:     time.Since(started).Seconds(),
		Settings: []Setting{},
		Figures:  []Figure{},
		Curves:   []Curve{},
		Series:   []Series{},
		Marks:    []Mark{},
		Problems: []Problem{},
	}
}

// AddSetting adds a setting with a formatted value.
func (r *Report) AddSetting(name, format string, args ...any) {
	r.Settings = append(r.Settings, Setting{name, fmt.Sprintf(format, args...)})
}

// AddFigures adds figures to a group.
func (r *Report) AddFigures(group string, list ...Figure) {
	for _, f := range list {
		f.Group = group
		r.Figures = append(r.Figures, f)
	}
}

// Figure returns the figure with a name, or an empty one.
func (r *Report) Figure(name string) Figure {
	i := slices.IndexFunc(r.Figures, func(f Figure) bool { return f.Name == name })
	if i < 0 {
		return Figure{}
	}
	return r.Figures[i]
}

// AddCurve adds the distribution of a measure in milliseconds.
func (r *Report) AddCurve(chart, name string, h *Histogram) {
	c := Curve{Chart: chart, Name: name, Unit: "ms", Latency: h.Summary(), Points: []CurvePoint{}}
	if c.Count > 0 {
		for _, p := range curvePercentiles {
			if float64(c.Count)*(1-p/100) < 1 {
				break // there are no samples beyond this point
			}
			c.Points = append(c.Points, CurvePoint{p, Milliseconds(h.Quantile(p / 100))})
		}
	}
	r.Curves = append(r.Curves, c)
}

// curvePercentiles are the points of a curve. They are evenly spaced on an axis that gives
// each further nine the same width.
var curvePercentiles = percentiles(0.5, 0.9999, 60)

func percentiles(from, to float64, n int) []float64 {
	list := make([]float64, 0, n+1)
	for i := range n + 1 {
		nines := nines(from) + (nines(to)-nines(from))*float64(i)/float64(n)
		list = append(list, math.Round((1-math.Pow(10, -nines))*1e6)/1e4)
	}
	return list
}

// nines returns the position of a share on that axis: 0.9 is 1, 0.99 is 2.
func nines(share float64) float64 { return -math.Log10(1 - share) }

// Count returns a figure that was counted.
func Count(name string, n int64, note string) Figure {
	return Figure{Name: name, Value: float64(n), Note: note}
}

// Gauge returns a function that reads a counter, for a Measure.
func Gauge(n *atomic.Int64) func() float64 {
	return func() float64 { return float64(n.Load()) }
}

// Conclude sets OK and Verdict from the figures and faults. It is called last.
func (r *Report) Conclude() {
	var missedGoals []string
	for _, f := range r.Figures {
		if !f.Met() {
			missedGoals = append(missedGoals, f.Name)
		}
	}
	correct := r.Faults == nil || *r.Faults == Faults{}
	r.OK = !r.Interrupted && correct && len(missedGoals) == 0
	switch {
	case r.Interrupted:
		r.Verdict = "interrupted"
	case !correct:
		r.Verdict = "NOT every update was correct"
		if r.Faults.onlyRequests() {
			r.Verdict = "every update was correct, but NOT every request was answered"
		}
	case len(missedGoals) > 0:
		r.Verdict = "goal missed: " + strings.Join(missedGoals, ", ")
	case r.Faults == nil:
		r.Verdict = "measured"
	default:
		r.Verdict = "every update was correct"
	}
}

// Fail marks the report as failed by something other than the servers.
func (r *Report) Fail(verdict string, err error) {
	r.OK, r.Verdict = false, verdict
	r.Problems = append(r.Problems, Problem{Kind: verdict, Detail: err.Error()})
}

// onlyRequests reports whether failed requests are the only faults.
func (f Faults) onlyRequests() bool {
	return f == Faults{FailedRequests: f.FailedRequests}
}

// WriteJSON writes the report as one JSON document.
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteTable writes the report as text.
func (r *Report) WriteTable(out io.Writer) error {
	var text strings.Builder
	row := func(name, value string) { fmt.Fprintf(&text, "%s\t%s\n", name, value) }
	row("scenario", fmt.Sprintf("%s, %.1f s", r.Scenario, r.Took))
	for _, s := range r.Settings {
		row(s.Name, s.Value)
	}
	for _, g := range r.groups() {
		text.WriteString("\n")
		for _, f := range g.Figures {
			row(f.Name, f.text())
		}
	}
	unit := ""
	for _, c := range r.Curves {
		if c.Unit != unit {
			unit = c.Unit
			fmt.Fprintf(&text, "\n%s\tcount\tp50\tp90\tp99\tmax\n", cmp.Or(unitNames[unit], unit))
		}
		fmt.Fprintf(&text, "%s\t%d\t%.1f\t%.1f\t%.1f\t%.1f\n", c.Name, c.Count, c.P50, c.P90, c.P99, c.Max)
	}
	text.WriteString("\n")
	if r.Faults != nil {
		for _, f := range r.Faults.rows() {
			row(f.Name, f.text())
		}
	}
	row("verdict", r.Verdict)
	for _, p := range r.Problems {
		fmt.Fprintf(&text, "\n%s", p.Kind)
		if p.Booking != "" {
			fmt.Fprintf(&text, ": booking %s", p.Booking)
		}
		fmt.Fprintf(&text, ": %s", p.Detail)
	}
	if len(r.Problems) > 0 {
		fmt.Fprintf(&text, "\n(at most %d of each kind are shown)\n", MaxProblems)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// unitNames are the full names of the units of curves. Other units are printed as they are.
var unitNames = map[string]string{"ms": "milliseconds"}

// figureGroup is a group with its figures.
type figureGroup struct {
	Name    string
	Figures []Figure
}

func (r *Report) groups() []figureGroup {
	var list []figureGroup
	for _, f := range r.Figures {
		i := slices.IndexFunc(list, func(g figureGroup) bool { return g.Name == f.Group })
		if i < 0 {
			i = len(list)
			list = append(list, figureGroup{Name: f.Group})
		}
		list[i].Figures = append(list[i].Figures, f)
	}
	return list
}

// text returns the figure with its unit, note and goal.
func (f Figure) text() string {
	text := Number(f.Value)
	if f.Unit != "" {
		text += " " + f.Unit
	}
	goal := f.GoalText()
	if goal != "" && !f.Met() {
		goal += ", MISSED"
	}
	switch {
	case f.Note != "" && goal != "":
		text += " (" + f.Note + "; " + goal + ")"
	case f.Note != "" || goal != "":
		text += " (" + f.Note + goal + ")"
	}
	return text
}

// GoalText returns the goal as text, or nothing if there is none.
func (f Figure) GoalText() string {
	switch {
	case f.AtMost != 0:
		return "goal: at most " + Number(f.AtMost)
	case f.AtLeast != 0:
		return "goal: at least " + Number(f.AtLeast)
	}
	return ""
}

// Number formats whole numbers in groups of three digits and other numbers with about three
// significant digits.
func Number(v float64) string {
	if v != math.Trunc(v) && math.Abs(v) < 0.1 {
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	if v != math.Trunc(v) && math.Abs(v) < 1000 {
		decimals := 1
		if math.Abs(v) < 10 {
			decimals = 2
		}
		return strconv.FormatFloat(v, 'f', decimals, 64)
	}
	digits := strconv.FormatFloat(math.Abs(v), 'f', 0, 64)
	var grouped strings.Builder
	if v < 0 {
		grouped.WriteByte('-')
	}
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			grouped.WriteByte(',')
		}
		grouped.WriteRune(d)
	}
	return grouped.String()
}

// Curve returns the curve with a name, or an empty one.
func (r *Report) Curve(name string) Curve {
	for _, c := range r.Curves {
		if c.Name == name {
			return c
		}
	}
	return Curve{}
}

// Add adds the counts of other to f.
func (f *Faults) Add(other Faults) {
	f.WrongPositions += other.WrongPositions
	f.WrongEstimates += other.WrongEstimates
	f.WrongNews += other.WrongNews
	f.StaleSnapshots += other.StaleSnapshots
	f.Missed += other.Missed
	f.Late += other.Late
	f.OutOfOrder += other.OutOfOrder
	f.Duplicates += other.Duplicates
	f.Malformed += other.Malformed
	f.FailedRequests += other.FailedRequests
	f.RefusedClients += other.RefusedClients
}

// MaxProblems is the number of problems of each kind that are described. The others are only
// counted.
const MaxProblems = 5
