package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"nowserving/loadtest/report"
)

const (
	barWidth = 24
	// plainEvery is the time between two lines without a terminal.
	plainEvery = 5 * time.Second
)

// bar shows progress: in one line on a terminal, in several lines elsewhere. It is used
// from one goroutine at a time. Errors of writing it do not stop the run.
type bar struct {
	out      io.Writer
	terminal bool
	shown    time.Time
	wide     int
}

func newBar(out io.Writer) *bar {
	b := &bar{out: out}
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			b.terminal = info.Mode()&os.ModeCharDevice != 0
		}
	}
	return b
}

func (b *bar) show(p report.Progress) {
	if !b.terminal && time.Since(b.shown) < plainEvery && p.Done < p.Total {
		return
	}
	b.shown = time.Now()
	done := 0
	if p.Total > 0 {
		done = int(barWidth * min(p.Done, p.Total) / p.Total)
	}
	line := fmt.Sprintf("[%s%s] %d/%d %s", strings.Repeat("#", done), strings.Repeat(".", barWidth-done), p.Done, p.Total, p.What)
	if p.Detail != "" {
		line += ", " + p.Detail
	}
	if !b.terminal {
		fmt.Fprintln(b.out, line) //nolint:errcheck // progress is optional
		return
	}
	fmt.Fprintf(b.out, "\r%-*s", b.wide, line) //nolint:errcheck // progress is optional
	b.wide = utf8.RuneCountInString(line)
}

func (b *bar) close() {
	if b.terminal && b.wide > 0 {
		fmt.Fprintln(b.out) //nolint:errcheck // progress is optional
	}
}
