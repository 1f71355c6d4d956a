package loadtest

import (
	"sync"
	"time"
)

const (
	// sampleEvery is how often a run is sampled at first.
	sampleEvery = 250 * time.Millisecond
	// maxSamples bounds the memory of a run of any length: when it is reached,
	// neighbours are joined and the sampling slows to half.
	maxSamples = 480
)

// sampler records measures over the time of a run.
type sampler struct {
	started  time.Time
	measures []measure

	mu      sync.Mutex
	every   time.Duration
	seconds []float64   // the end of each sample
	values  [][]float64 // by sample and measure
	last    []float64   // totals at the last sample
	marks   []Mark
}

// measure is what a sampler reads. A rate reads a total that only grows, and
// shows how much it grew in a second; any other shows what it reads.
type measure struct {
	chart, name, unit string
	rate              bool
	read              func() float64
}

func newSampler(started time.Time, measures ...measure) *sampler {
	return &sampler{started: started, measures: measures, every: sampleEvery, last: make([]float64, len(measures))}
}

// run samples until the returned function is called.
func (s *sampler) run() (stop func()) {
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
				s.sample(time.Since(s.started).Seconds())
				return
			}
		}
	})
	return func() {
		close(quit)
		done.Wait()
	}
}

// sample takes one sample and returns the time until the next.
func (s *sampler) sample(second float64) time.Duration {
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
		row[i] = m.read()
		if m.rate {
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

// thin joins each two neighbouring samples into one.
func (s *sampler) thin() {
	start := 0.0
	n := len(s.seconds) / 2
	for i := range n {
		a, b := 2*i, 2*i+1
		first, second := s.seconds[a]-start, s.seconds[b]-s.seconds[a]
		start = s.seconds[b]
		for j := range s.measures {
			s.values[i][j] = (s.values[a][j]*first + s.values[b][j]*second) / (first + second)
		}
		s.seconds[i] = s.seconds[b]
	}
	s.seconds, s.values = s.seconds[:n], s.values[:n]
}

// mark names the present moment.
func (s *sampler) mark(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, Mark{time.Since(s.started).Seconds(), text})
}

// fill adds what was recorded to a report.
func (s *sampler) fill(r *Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range s.measures {
		series := Series{Chart: m.chart, Name: m.name, Unit: m.unit, Points: make([]SeriesPoint, 0, len(s.seconds))}
		for j, second := range s.seconds {
			series.Points = append(series.Points, SeriesPoint{second, s.values[j][i]})
		}
		r.Series = append(r.Series, series)
	}
	r.Marks = append(r.Marks, s.marks...)
}
