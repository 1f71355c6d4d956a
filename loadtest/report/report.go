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

// Report is the outcome of a scenario: of every scenario the same form, so that
// tables, JSON and pages of different runs can be read side by side.
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

	// Faults is nil when the scenario checks nothing against a truth.
	Faults   *Faults   `json:"faults"`
	Problems []Problem `json:"problems"`
}

// Setting is one thing a run was told.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Figure is one number that was measured or counted.
type Figure struct {
	Group string  `json:"group,omitempty"` // figures of a group stand together, in the order of their first
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	Note  string  `json:"note,omitempty"`
	// Headline puts the figure large at the top of the page.
	Headline bool `json:"headline,omitempty"`
	// AtMost and AtLeast are goals; zero is none. A goal missed fails the run.
	AtMost  float64 `json:"atMost,omitempty"`
	AtLeast float64 `json:"atLeast,omitempty"`
}

// Met tells whether the figure keeps its goal.
func (f Figure) Met() bool {
	return (f.AtMost == 0 || f.Value <= f.AtMost) && (f.AtLeast == 0 || f.Value >= f.AtLeast)
}

// Curve is the distribution of one measure.
type Curve struct {
	Chart string `json:"chart"` // curves of a chart are drawn together
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	Latency
	Points []CurvePoint `json:"points"`
}

// CurvePoint says what value a percentage of the samples do not exceed.
type CurvePoint struct {
	Percentile float64 `json:"percentile"`
	Value      float64 `json:"value"`
}

// Series is one measure over the time of the run.
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

// Latency sums up a distribution, in the unit of its curve.
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

// Faults counts what was wrong, by kind.
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

// rows lists the faults by name, for people.
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

// New begins the report of a scenario. Lists are never nil, so that they
// are lists in JSON too.
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

func (r *Report) AddSetting(name, format string, args ...any) {
	r.Settings = append(r.Settings, Setting{name, fmt.Sprintf(format, args...)})
}

// AddFigures adds figures of one group.
func (r *Report) AddFigures(group string, list ...Figure) {
	for _, f := range list {
		f.Group = group
		r.Figures = append(r.Figures, f)
	}
}

// Figure returns the figure of a name, or one without a name.
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
				break // beyond the last sample there is nothing to know
			}
			c.Points = append(c.Points, CurvePoint{p, Milliseconds(h.Quantile(p / 100))})
		}
	}
	r.Curves = append(r.Curves, c)
}

// curvePercentiles are the points of a curve: evenly spread on an axis on which
// each further nine takes the same room.
var curvePercentiles = percentiles(0.5, 0.9999, 60)

func percentiles(from, to float64, n int) []float64 {
	list := make([]float64, 0, n+1)
	for i := range n + 1 {
		nines := nines(from) + (nines(to)-nines(from))*float64(i)/float64(n)
		list = append(list, math.Round((1-math.Pow(10, -nines))*1e6)/1e4)
	}
	return list
}

// nines is the place of a share on that axis: 0.9 is 1, 0.99 is 2.
func nines(share float64) float64 { return -math.Log10(1 - share) }

// Count is a figure that was counted.
func Count(name string, n int64, note string) Figure {
	return Figure{Name: name, Value: float64(n), Note: note}
}

// Gauge reads a counter for a sampler.
func Gauge(n *atomic.Int64) func() float64 {
	return func() float64 { return float64(n.Load()) }
}

// Conclude decides whether all was well, once everything has been filled in.
func (r *Report) Conclude() {
	var missedGoals []string
	for _, f := range r.Figures {
		if !f.Met() {
			missedGoals = append(missedGoals, f.Name)
		}
	}
	told := r.Faults == nil || *r.Faults == Faults{}
	r.OK = !r.Interrupted && told && len(missedGoals) == 0
	switch {
	case r.Interrupted:
		r.Verdict = "interrupted"
	case !told:
		r.Verdict = "NOT every client was told the truth"
		if r.Faults.onlyRequests() {
			r.Verdict = "every client was told the truth, but NOT every request was answered"
		}
	case len(missedGoals) > 0:
		r.Verdict = "goal missed: " + strings.Join(missedGoals, ", ")
	case r.Faults == nil:
		r.Verdict = "measured"
	default:
		r.Verdict = "every client was told the truth"
	}
}

// Fail ends a report with something that went wrong outside of the servers' work.
func (r *Report) Fail(verdict string, err error) {
	r.OK, r.Verdict = false, verdict
	r.Problems = append(r.Problems, Problem{Kind: verdict, Detail: err.Error()})
}

// onlyRequests tells whether failed requests are all that is wrong.
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

// WriteTable writes the report for people.
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

// unitNames spells out the units of curves; any other is written as it is.
var unitNames = map[string]string{"ms": "milliseconds"}

// figureGroup is the figures that stand together.
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

// text is the figure as people read it.
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

// GoalText says what was to be reached, if anything.
func (f Figure) GoalText() string {
	switch {
	case f.AtMost != 0:
		return "goal: at most " + Number(f.AtMost)
	case f.AtLeast != 0:
		return "goal: at least " + Number(f.AtLeast)
	}
	return ""
}

// Number writes whole numbers in groups of three digits, and others with as
// many decimals as three digits need.
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

// Curve returns the curve of a name, or an empty one.
func (r *Report) Curve(name string) Curve {
	for _, c := range r.Curves {
		if c.Name == name {
			return c
		}
	}
	return Curve{}
}

func (f *Faults) Add(o Faults) {
	f.WrongPositions += o.WrongPositions
	f.WrongEstimates += o.WrongEstimates
	f.WrongNews += o.WrongNews
	f.StaleSnapshots += o.StaleSnapshots
	f.Missed += o.Missed
	f.Late += o.Late
	f.OutOfOrder += o.OutOfOrder
	f.Duplicates += o.Duplicates
	f.Malformed += o.Malformed
	f.FailedRequests += o.FailedRequests
	f.RefusedClients += o.RefusedClients
}

// MaxProblems is how many problems of each kind are described; the rest are counted.
const MaxProblems = 5
