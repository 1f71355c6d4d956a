package loadtest

import (
	"fmt"
	"html/template"
	"io"
)

var page = template.Must(template.New("page").Parse(`<!doctype html><title>{{.Scenario}}</title><p>{{.Verdict}}</p>`))

// WriteHTML writes the report as one page that needs nothing else.
func (r *Report) WriteHTML(w io.Writer) error {
	if err := page.Execute(w, r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
