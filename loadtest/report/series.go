package report

import (
	"sync"
	"time"
)

const (
	// sampleEvery is the time between two samples at the start of a run.
	sampleEvery = 250 * time.Millisecond
	// maxSamples bounds the memory of a run. When it is reached, pairs of neighbouring samples
	// are merged and the time between samples doubles.
	maxSamples = 480
)

// Sampler records measures during a run.
type Sampler struct {
	started  time.Time
	measures []Measure

	mu      sync.Mutex
	every   time.Duration
	seconds []float64   // the end of each sample
	values  [][]float64 // by sample and measure
	last    []float64   // totals at the last sample
	marks   []Mark
}

// Measure is a value that a sampler reads. If Rate is set, Read returns a total that only
// grows, and the series shows its growth per second.
type Measure struct {
	Chart, Name, Unit string
	Rate              bool
	Read              func() float64
}

// NewSampler returns a sampler of measures for a run that started at a moment.
func NewSampler(started time.Time, measures ...Measure) *Sampler {
	return &Sampler{started: started, measures: measures, every: sampleEvery, last: make([]float64, len(measures))}
}

// Run samples until the returned function is called.
func (s *Sampler) Run() (stop func()) {
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		timer := time.NewTimer(s.every)
		defer timer.Stop()
		for {
			select {
			case now := <-timer.C:
				timer.Reset(s.sample(now.Sub(s.started).Seconds()))
			case <-quit:
				s.finish(time.Since(s.started).Seconds())
				return
			}
		}
	})
	return func() {
		close(quit)
		done.Wait()
	}
}

// sample takes one sample and returns the time until the next one.
func (s *Sampler) sample(second float64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := 0.0
	if n := len(s.seconds); n > 0 {
		before = s.seconds[n-1]
	}
	if second <= before {
		return s.every
	}
	row := make([]float64, len(s.measures))
	for i, m := range s.measures {
		row[i] = m.Read()
		if m.Rate {
			row[i], s.last[i] = (row[i]-s.last[i])/(second-before), row[i]
		}
	}
	s.seconds, s.values = append(s.seconds, second), append(s.values, row)
	if len(s.seconds) >= maxSamples {
		s.thin()
		s.every *= 2
	}
	return s.every
}

// finish takes the last sample. If little time has passed since the previous one, the two are
// merged, because a rate over a short time is meaningless.
func (s *Sampler) finish(second float64) {
	s.sample(second)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.seconds)
	if n < 2 || s.seconds[n-1]-s.seconds[n-2] > s.every.Seconds()/2 {
		return
	}
	s.join(n-2, n-2)
	s.seconds, s.values = s.seconds[:n-1], s.values[:n-1]
}

// join stores the average of the samples from and from+1 at index at.
func (s *Sampler) join(from, at int) {
	start := 0.0
	if at > 0 {
		start = s.seconds[at-1]
	}
	first, second := s.seconds[from]-start, s.seconds[from+1]-s.seconds[from]
	for j := range s.measures {
		s.values[at][j] = (s.values[from][j]*first + s.values[from+1][j]*second) / (first + second)
	}
	s.seconds[at] = s.seconds[from+1]
}

// thin merges each pair of neighbouring samples.
func (s *Sampler) thin() {
	n := len(s.seconds) / 2
	for i := range n {
		s.join(2*i, i)
	}
	s.seconds, s.values = s.seconds[:n], s.values[:n]
}

// Mark adds a mark at the present moment.
func (s *Sampler) Mark(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, Mark{time.Since(s.started).Seconds(), text})
}

// AddTo adds the recorded series and marks to a report.
func (s *Sampler) AddTo(r *Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.measures {
		series := Series{Chart: m.Chart, Name: m.Name, Unit: m.Unit, Points: make([]SeriesPoint, 0, len(s.seconds))}
		for j, second := range s.seconds {
			series.Points = append(series.Points, SeriesPoint{second, s.values[j][i]})
		}
		r.Series = append(r.Series, series)
	}
	r.Marks = append(r.Marks, s.marks...)
}
