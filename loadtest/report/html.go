package report

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

//go:embed report.html
var pageSource string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"sentence": sentence,
	"number":   Number,
}).Parse(pageSource))

// WriteHTML writes the report as one page without scripts, other files or network access.
func (r *Report) WriteHTML(w io.Writer) error {
	if err := page.Execute(w, newPageView(r)); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

const (
	// plotWidth and plotHeight are the units of a plot. The page stretches it to the available
	// space; labels are text beside it, so they are not distorted.
	plotWidth, plotHeight = 1000.0, 400.0
	// maxColumns is the number of columns of a chart that show values under the pointer, at
	// most.
	maxColumns = 80
	// maxTableRows is the number of rows in the table behind a series, at most.
	maxTableRows = 60
	// lineStyles is the number of line styles in the style sheet.
	lineStyles = 6
	// minCurve is the number of samples a curve needs to be drawn. The table lists every
	// curve.
	minCurve = 20
	// logarithmicFrom is the ratio of the highest to the lowest value from which a chart uses
	// a logarithmic axis.
	logarithmicFrom = 25
)

// pageView is the data of the template.
type pageView struct {
	*Report
	Tiles  []tile
	Groups []figureGroup
	Faults []Figure
	Found  int // faults that are not zero
	Curves []chart
	Series []chart
	Shown  int // the largest number of problems described of each kind
}

// tile is a figure shown large at the top.
type tile struct {
	Name, Value, Unit, Note, Goal string
	Missed                        bool
}

// chart is a drawing and the table behind it.
type chart struct {
	Title   string
	Unit    string
	Across  string // what the horizontal axis counts
	Summary string // the content of the drawing for screen readers
	Log     bool
	Lines   []chartLine
	XTicks  []tick
	YTicks  []tick
	Marks   []chartMark
	Columns []column
	Head    []string
	Rows    [][]string
}

// chartLine is one line. Its style follows from its position among the lines.
type chartLine struct {
	Style  int
	Name   string
	Legend string
	Path   string
	Area   string // below the line, if it is the only one
}

// tick is a label of an axis. At is a percentage of the plot from the left or from the top.
type tick struct {
	At   float64
	Text string
	// Minor labels are hidden on narrow screens.
	Minor bool
}

// chartMark is a numbered moment. The list below the chart explains it.
type chartMark struct {
	Number     int
	At, Second float64
	Text       string
}

// column is a vertical strip of a plot that shows the values under the pointer.
type column struct {
	Left, Width, At float64
	Far             bool
	Title           string
	Values          []columnValue
}

type columnValue struct {
	Style      int
	Name, Text string
}

func newPageView(r *Report) *pageView {
	v := &pageView{Report: r, Groups: r.groups(), Shown: MaxProblems}
	for _, f := range r.Figures {
		if f.Headline {
			v.Tiles = append(v.Tiles, tile{f.Name, Number(f.Value), f.Unit, f.Note, f.GoalText(), !f.Met()})
		}
	}
	if len(r.Curves) > 0 && r.Curves[0].Count > 0 {
		c := r.Curves[0]
		v.Tiles = append(v.Tiles,
			tile{Name: c.Name + ", median", Value: Number(c.P50), Unit: c.Unit},
			tile{Name: c.Name + ", 99 of 100 within", Value: Number(c.P99), Unit: c.Unit},
		)
	}
	if r.Faults != nil {
		v.Faults = r.Faults.rows()
		for _, f := range v.Faults {
			if f.Value != 0 {
				v.Found++
			}
		}
	}
	for _, list := range grouped(r.Curves, func(c Curve) string { return c.Chart + "\x00" + c.Unit }) {
		v.Curves = append(v.Curves, curveChart(list))
	}
	for _, list := range grouped(r.Series, func(s Series) string { return s.Chart + "\x00" + s.Unit }) {
		v.Series = append(v.Series, seriesChart(list, r.Marks))
	}
	return v
}

// grouped groups elements that have the same key, in the order in which the keys first appear.
func grouped[T any](list []T, key func(T) string) [][]T {
	var keys []string
	var groups [][]T
	for _, x := range list {
		i := slices.Index(keys, key(x))
		if i < 0 {
			i = len(keys)
			keys, groups = append(keys, key(x)), append(groups, nil)
		}
		groups[i] = append(groups[i], x)
	}
	return groups
}

// curveTicks are the percentiles labelled on the axis.
var curveTicks = []float64{50, 75, 90, 95, 99, 99.9, 99.99}

// curveChart draws value over percentile. The axis gives each further nine the same width.
func curveChart(list []Curve) chart {
	c := chart{
		Title:  sentence(cmp.Or(list[0].Chart, list[0].Name)),
		Unit:   cmp.Or(unitNames[list[0].Unit], list[0].Unit),
		Across: "percent of the samples are within",
		Head:   []string{"", "count", "p50", "p90", "p99", "highest"},
	}
	// Only as many curves are drawn as there are line styles: those with the most samples.
	least := uint64(minCurve)
	if counts := sampleCounts(list); len(counts) > lineStyles {
		least = max(least, counts[lineStyles-1])
	}
	var drawn []Curve
	var values []float64
	for _, l := range list {
		c.Rows = append(c.Rows, []string{l.Name, Number(float64(l.Count)), Number(l.P50), Number(l.P90), Number(l.P99), Number(l.Max)})
		c.Summary += fmt.Sprintf("%s: half within %s, 99 of 100 within %s %s. ", l.Name, Number(l.P50), Number(l.P99), c.Unit)
		if l.Count < least || len(l.Points) < 2 || len(drawn) == lineStyles {
			continue
		}
		drawn = append(drawn, l)
		for _, p := range l.Points {
			values = append(values, p.Value)
		}
	}
	if len(drawn) == 0 {
		return c
	}
	ticks := ticksOf(drawn)
	left, right := nines(0.5), nines(ticks[len(ticks)-1]/100)
	x := func(percentile float64) float64 { return (nines(percentile/100) - left) / (right - left) }
	y := newScale(values)
	c.Log, c.YTicks = y.log, y.ticks()
	for _, percentile := range ticks {
		c.XTicks = append(c.XTicks, tick{
			At: 100 * x(percentile), Text: strconv.FormatFloat(percentile, 'f', -1, 64),
			Minor: percentile == 75 || percentile == 95,
		})
	}
	for i, l := range drawn {
		points := make([][2]float64, 0, len(l.Points))
		for _, p := range l.Points {
			points = append(points, [2]float64{x(p.Percentile), y.at(p.Value)})
		}
		c.Lines = append(c.Lines, newLinePath(i, l.Name, fmt.Sprintf("p50 %s, p99 %s", Number(l.P50), Number(l.P99)), points, len(drawn) == 1))
	}
	c.Columns = curveColumns(drawn, x)
	return c
}

// ticksOf returns the labelled percentiles of an axis. It ends at the first that includes all
// points.
func ticksOf(drawn []Curve) []float64 {
	end := curveTicks[0]
	for _, l := range drawn {
		end = max(end, l.Points[len(l.Points)-1].Percentile)
	}
	if i := slices.IndexFunc(curveTicks, func(t float64) bool { return t >= end }); i >= 0 {
		return curveTicks[:i+1]
	}
	return curveTicks
}

// curveColumns returns a column for each percentile that curves have a value for. x is the
// place of a percentile on the axis, from 0 to 1.
func curveColumns(drawn []Curve, x func(percentile float64) float64) []column {
	var columns []column
	for i, percentile := range curvePercentiles {
		col := column{Title: "p" + strconv.FormatFloat(percentile, 'f', -1, 64), At: 100 * x(percentile)}
		for style, l := range drawn {
			if i < len(l.Points) {
				col.Values = append(col.Values, columnValue{style % lineStyles, l.Name, Number(l.Points[i].Value) + " " + l.Unit})
			}
		}
		if len(col.Values) > 0 {
			columns = append(columns, col)
		}
	}
	spreadColumns(columns)
	return columns
}

// sampleCounts returns the number of samples of each curve, in descending order.
func sampleCounts(list []Curve) []uint64 {
	counts := make([]uint64, 0, len(list))
	for _, c := range list {
		counts = append(counts, c.Count)
	}
	slices.SortFunc(counts, func(a, b uint64) int { return cmp.Compare(b, a) })
	return counts
}

// seriesChart draws values over the seconds of the run.
func seriesChart(list []Series, marks []Mark) chart {
	c := chart{
		Title:  sentence(cmp.Or(list[0].Chart, list[0].Name)),
		Unit:   list[0].Unit,
		Across: "seconds since the start",
		Head:   []string{"second"},
	}
	end := 0.0
	values := []float64{0}
	for _, s := range list {
		highest, total := 0.0, 0.0
		for _, p := range s.Points {
			end = max(end, p.Second)
			values = append(values, p.Value)
			highest, total = max(highest, p.Value), total+p.Value
		}
		c.Head = append(c.Head, s.Name)
		if len(s.Points) > 0 {
			c.Summary += fmt.Sprintf("%s: %s on average, at most %s. ", s.Name, Number(total/float64(len(s.Points))), strings.TrimSpace(Number(highest)+" "+s.Unit))
		}
	}
	if end == 0 {
		return c
	}
	y := newScale(values)
	c.YTicks = y.ticks()
	step := niceStep(end / 6)
	for s := 0.0; s <= end; s += step {
		c.XTicks = append(c.XTicks, tick{At: 100 * s / end, Text: Number(s)})
	}
	for i, m := range marks {
		c.Marks = append(c.Marks, chartMark{i + 1, 100 * m.Second / end, m.Second, m.Text})
		c.Summary += fmt.Sprintf("At %s seconds: %s. ", Number(m.Second), m.Text)
	}
	for i, s := range list {
		points := make([][2]float64, 0, len(s.Points))
		highest := 0.0
		for _, p := range s.Points {
			points = append(points, [2]float64{p.Second / end, y.at(p.Value)})
			highest = max(highest, p.Value)
		}
		c.Lines = append(c.Lines, newLinePath(i, s.Name, "at most "+Number(highest), points, len(list) == 1))
	}
	c.addSeconds(list, end)
	return c
}

// addSeconds adds a column and a table row for each second, at most maxColumns and
// maxTableRows.
func (c *chart) addSeconds(list []Series, end float64) {
	n := len(list[0].Points)
	every := max(1, (n+maxColumns-1)/maxColumns)
	rowEvery := max(1, (n+maxTableRows-1)/maxTableRows)
	for i, p := range list[0].Points {
		col := column{Title: Number(p.Second) + " s", At: 100 * p.Second / end}
		row := []string{Number(p.Second)}
		for style, s := range list {
			if i >= len(s.Points) {
				continue
			}
			text := Number(s.Points[i].Value)
			row = append(row, text)
			col.Values = append(col.Values, columnValue{style % lineStyles, s.Name, strings.TrimSpace(text + " " + s.Unit)})
		}
		if i%every == 0 {
			c.Columns = append(c.Columns, col)
		}
		if i%rowEvery == 0 {
			c.Rows = append(c.Rows, row)
		}
	}
	spreadColumns(c.Columns)
}

// newLinePath converts points, given as shares of the plot, to an SVG path.
func newLinePath(i int, name, legend string, points [][2]float64, alone bool) chartLine {
	var path strings.Builder
	for j, p := range points {
		verb := 'L'
		if j == 0 {
			verb = 'M'
		}
		fmt.Fprintf(&path, "%c%.1f %.1f", verb, p[0]*plotWidth, (1-p[1])*plotHeight)
	}
	l := chartLine{Style: i % lineStyles, Name: name, Legend: legend, Path: path.String()}
	if alone && len(points) > 0 {
		l.Area = fmt.Sprintf("%sL%.1f %.1fL%.1f %.1fZ", l.Path, points[len(points)-1][0]*plotWidth, plotHeight, points[0][0]*plotWidth, plotHeight)
	}
	return l
}

// spreadColumns extends each column half way to its neighbours.
func spreadColumns(list []column) {
	from := 0.0
	for i := range list {
		at, to := list[i].At, 100.0
		if i < len(list)-1 {
			to = (at + list[i+1].At) / 2
		}
		list[i].Left, list[i].Width, list[i].Far = from, to-from, at > 50
		list[i].At = 100 * (at - from) / max(to-from, 1e-9)
		from = to
	}
}

// scale maps values to shares of a plot's height.
type scale struct {
	from, to float64 // logarithms when log is set
	step     float64 // between two labels of a linear scale
	log      bool
}

func newScale(values []float64) scale {
	lowest, highest := slices.Min(values), slices.Max(values)
	if lowest > 0 && highest/lowest >= logarithmicFrom {
		return scale{from: math.Floor(math.Log10(lowest)), to: math.Log10(highest * 1.05), log: true}
	}
	if highest <= 0 {
		highest = 1
	}
	step := niceStep(highest / 4)
	return scale{to: step * math.Ceil(highest*1.02/step), step: step}
}

func (s scale) at(v float64) float64 {
	if s.log {
		v = math.Log10(max(v, math.Pow(10, s.from)))
	}
	return (v - s.from) / (s.to - s.from)
}

func (s scale) ticks() []tick {
	var list []tick
	add := func(v float64) { list = append(list, tick{At: 100 * (1 - s.at(v)), Text: Number(v)}) }
	if !s.log {
		for v := 0.0; v <= s.to*1.001; v += s.step {
			add(v)
		}
		return list
	}
	for power := s.from; power <= s.to; power++ {
		for _, factor := range []float64{1, 2, 5} {
			if factor > 1 && s.to-s.from > 2.2 {
				continue
			}
			if v := factor * math.Pow(10, power); math.Log10(v) <= s.to {
				add(v)
			}
		}
	}
	return list
}

// niceStep returns the next larger of 1, 2 or 5 times a power of ten.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= v*0.999 {
			return factor * power
		}
	}
	return 10 * power
}

// sentence capitalizes the first letter of a text.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}
