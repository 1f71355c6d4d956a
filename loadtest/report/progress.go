package report

import (
	"sync"
	"time"
)

// ProgressInterval is how often progress is reported.
const ProgressInterval = 200 * time.Millisecond

// Progress is how far a scenario has come.
type Progress struct {
	Done, Total int64
	What        string // is counted, like "visits"
	Detail      string // what else is worth watching, like "12 waiting, 0 wrong"
}

// ShowProgress calls show a few times a second, and once more when the returned
// function is called. A nil show shows nothing.
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
