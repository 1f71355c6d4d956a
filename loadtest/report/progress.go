package report

import (
	"sync"
	"time"
)

// ProgressInterval is the time between two reports of progress.
const ProgressInterval = 200 * time.Millisecond

// Progress is the state of a running scenario.
type Progress struct {
	Done, Total int64
	What        string // what Done and Total count, like "visits"
	Detail      string // further numbers, like "12 waiting, 0 wrong"
}

// ShowProgress calls show every ProgressInterval, and once more when the returned function is
// called. If show is nil, it does nothing.
func ShowProgress(show func(Progress), now func() Progress) (stop func()) {
	if show == nil {
		return func() {}
	}
	quit := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(ProgressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				show(now())
			case <-quit:
				show(now())
				return
			}
		}
	})
	return func() {
		close(quit)
		done.Wait()
	}
}
