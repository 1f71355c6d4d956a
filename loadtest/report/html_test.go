package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fullReport has something of everything.
func fullReport() *Report {
	r := New("storm", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	r.AddSetting("against", "<http://a&b>")
	r.AddFigures("storm", Figure{Name: "served again", Value: 12.3, Unit: "s", AtMost: 10, Headline: true})
	r.AddFigures("connections", Count("opened", 12345, "in all"))
	slow, fast := new(Histogram), new(Histogram)
	for i := range 10_000 {
		slow.Add(time.Duration(i) * time.Millisecond)
		fast.Add(time.Duration(i) * time.Microsecond)
	}
	few := new(Histogram)
	few.Add(time.Second)
	r.AddCurve("told", "slow", slow)
	r.AddCurve("told", "fast", fast)
	r.AddCurve("told", "few", few)
	r.Series = append(r.Series, Series{Chart: "people", Name: "waiting", Points: []SeriesPoint{{1, 5}, {2, 10}, {4, 0}}})
	r.Marks = append(r.Marks, Mark{2, "all cut off"})
	r.Faults = &Faults{WrongPositions: 3}
	r.Problems = append(r.Problems, Problem{Kind: "wrong position", Booking: "b1", Detail: "told <script>alert(1)</script>"})
	r.Conclude()
	return r
}

func writePage(t *testing.T, r *Report) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, r.WriteHTML(&out))
	return out.String()
}

func TestPageStandsAlone(t *testing.T) {
	page := writePage(t, fullReport())
	for _, forbidden := range []string{"<script", "<link", "<img", "url(", "@import", "src=", "ZgotmplZ"} {
		require.NotContains(t, page, forbidden)
	}
	for _, want := range []string{
		"NOT every update was correct", "&lt;http://a&amp;b&gt;", "12,345", "told &lt;script&gt;",
		"goal: at most 10", "all cut off", "prefers-color-scheme: dark", "width=device-width",
	} {
		require.Contains(t, page, want)
	}
	require.Equal(t, strings.Count(page, "<figure"), strings.Count(page, "<table>"), "a table behind each chart")
	require.Regexp(t, `role="img" aria-label="slow: half within [0-9,.]+, 99 of 100 within [0-9,.]+ milliseconds\.`, page)
}

func TestPageIsWellFormed(t *testing.T) {
	for name, r := range map[string]*Report{"full": fullReport(), "empty": New("floor", time.Now())} {
		t.Run(name, func(t *testing.T) {
			// What HTML may leave open is closed, and then XML's rules hold.
			page := regexp.MustCompile(`<(meta|!doctype)[^>]*>`).ReplaceAllString(writePage(t, r), "")
			d := xml.NewDecoder(strings.NewReader(page))
			d.Entity = xml.HTMLEntity
			for {
				_, err := d.Token()
				if errors.Is(err, io.EOF) {
					return
				}
				require.NoError(t, err)
			}
		})
	}
}

func TestCurveIsDrawnWhereItsValuesAre(t *testing.T) {
	c := curveChart(fullReport().Curves)
	require.True(t, c.Log, "a thousand times apart")
	require.Len(t, c.Lines, 2, "one sample is no curve")
	require.Len(t, c.Rows, 3, "and yet it is in the table")
	require.Equal(t, "50", c.XTicks[0].Text)
	require.Zero(t, c.XTicks[0].At)
	require.Equal(t, "99.99", c.XTicks[len(c.XTicks)-1].Text)
	require.InDelta(t, 100, c.XTicks[len(c.XTicks)-1].At, 0.01)
	step := func(i int) float64 { return c.XTicks[i+1].At - c.XTicks[i].At }
	require.InDelta(t, step(4), step(5), 0.1, "each further nine takes the same room")
	require.True(t, strings.HasPrefix(c.Lines[0].Path, "M0.0 "), "it begins at the median")
	require.NotEqual(t, c.Lines[0].Path, c.Lines[1].Path)
	require.Equal(t, []columnValue{{0, "slow", "5,100 ms"}, {1, "fast", "5.11 ms"}}, c.Columns[0].Values)
	end := 0.0
	for _, col := range c.Columns {
		require.InDelta(t, end, col.Left, 1e-6, "columns leave no gap")
		end = col.Left + col.Width
	}
	require.InDelta(t, 100, end, 1e-6)
}

func TestAChartShowsOnlyWhatCanBeToldApart(t *testing.T) {
	r := New("x", time.Now())
	for i := range 10 {
		h := new(Histogram)
		for range 30 + 10*(i%7) {
			h.Add(time.Millisecond)
		}
		r.AddCurve("requests", string(rune('a'+i)), h)
	}
	c := curveChart(r.Curves)
	require.Len(t, c.Rows, 10)
	names := ""
	for _, l := range c.Lines {
		names += l.Name
	}
	require.Equal(t, "cdefgj", names, "those with the most samples")
}

func TestCurveEndsWhereItsSamplesEnd(t *testing.T) {
	h := new(Histogram)
	for range 200 {
		h.Add(time.Millisecond)
	}
	r := New("x", time.Now())
	r.AddCurve("", "name", h)
	last := r.Curves[0].Points[len(r.Curves[0].Points)-1]
	require.LessOrEqual(t, last.Percentile, 99.5)
	require.Greater(t, last.Percentile, 99.0)
	c := curveChart(r.Curves)
	require.Equal(t, "99.9", c.XTicks[len(c.XTicks)-1].Text)
	require.NotEmpty(t, c.Lines[0].Area, "a line alone has its area filled")
}

func TestSeriesIsDrawnOverItsSeconds(t *testing.T) {
	r := fullReport()
	c := seriesChart(r.Series, r.Marks)
	require.Equal(t, "M250.0 266.7L500.0 133.3L1000.0 400.0", c.Lines[0].Path)
	require.Equal(t, []chartMark{{1, 50, 2, "all cut off"}}, c.Marks)
	require.Equal(t, [][]string{{"1", "5"}, {"2", "10"}, {"4", "0"}}, c.Rows)
	require.Equal(t, "waiting: 5 on average, at most 10. At 2 seconds: all cut off. ", c.Summary)
}

func TestNumbersAreReadable(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 5: "5", 999: "999", 1000: "1,000", 1234567: "1,234,567", -12345: "-12,345",
		1.234: "1.23", 12.34: "12.3", 1234.5: "1,234", 0.001: "0.001", 0.05: "0.05",
	} {
		require.Equal(t, want, Number(v), "%g", v)
	}
}

func TestGoalsDecide(t *testing.T) {
	r := New("slow", time.Now())
	r.AddFigures("", Figure{Name: "ratio", Value: 1.3, AtMost: 1.2})
	r.Conclude()
	require.False(t, r.OK)
	require.Equal(t, "goal missed: ratio", r.Verdict)
	r.Figures[0].Value = 1.2
	r.Conclude()
	require.True(t, r.OK)
	require.Equal(t, "measured", r.Verdict)
	r.AddFigures("", Figure{Name: "speed", Value: 1.3, AtLeast: 2})
	r.Conclude()
	require.Equal(t, "goal missed: speed", r.Verdict)
	r.Figures = nil
	r.Faults = &Faults{FailedRequests: 1}
	r.Conclude()
	require.False(t, r.OK)
	require.Contains(t, r.Verdict, "NOT every request was answered")
}

func TestSamplerKeepsTheShapeOfALongRun(t *testing.T) {
	total := 0.0
	s := NewSampler(time.Now(),
		Measure{Name: "rate", Rate: true, Read: func() float64 { return total }},
		Measure{Name: "level", Read: func() float64 { return 7 }},
	)
	for i := range 10 * maxSamples {
		total += 5
		s.sample(float64(i+1) / 2)
	}
	total += 5
	s.finish(float64(10*maxSamples)/2 + 0.5)
	var r Report
	s.AddTo(&r)
	require.Less(t, len(r.Series[0].Points), maxSamples)
	require.Greater(t, len(r.Series[0].Points), maxSamples/4)
	sum, before := 0.0, 0.0
	for i, p := range r.Series[0].Points {
		require.InDelta(t, 10, p.Value, 1e-6)
		require.InDelta(t, 7, r.Series[1].Points[i].Value, 1e-6)
		sum += p.Value * (p.Second - before)
		before = p.Second
	}
	require.InDelta(t, total, sum, 1e-3, "nothing is lost by joining samples")
}
