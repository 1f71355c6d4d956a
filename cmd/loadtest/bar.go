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
	// plainEvery is how often a line is printed where there is no terminal.
	plainEvery = 5 * time.Second
)

// bar draws progress: over itself on a terminal, line by line elsewhere. It is
// used from one goroutine at a time. It is a courtesy: where it cannot be
// written, the run goes on without it.
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
		_, _ = fmt.Fprintln(b.out, line)
		return
	}
	_, _ = fmt.Fprintf(b.out, "\r%-*s", b.wide, line)
	b.wide = utf8.RuneCountInString(line)
}

func (b *bar) close() {
	if b.terminal && b.wide > 0 {
		_, _ = fmt.Fprintln(b.out)
	}
}
