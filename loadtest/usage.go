package loadtest

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// usage reads what the nodes have used so far.
func (a *api) usage(ctx context.Context) (usage, error) {
	pages := make([]string, len(a.nodes))
	for i, node := range a.nodes {
		pages[i] = node + "/metrics"
	}
	return scrape(ctx, a.http, a.key, pages)
}

// scrape reads what servers say they have used, and adds it up. The addresses
// are of pages in the text format of Prometheus; key, unless empty, opens them.
func scrape(ctx context.Context, conn *http.Client, key string, pages []string) (usage, error) {
	var sum usage
	for _, page := range pages {
		u, err := scrapeOne(ctx, conn, key, page)
		if err != nil {
			return usage{}, fmt.Errorf("read %s: %w", page, err)
		}
		sum.cpu += u.cpu
		sum.resident += u.resident
		sum.goroutines += u.goroutines
	}
	return sum, nil
}

func scrapeOne(ctx context.Context, conn *http.Client, key, page string) (u usage, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return usage{}, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := conn.Do(req)
	if err != nil {
		return usage{}, err
	}
	defer func() {
		if closeErr := res.Body.Close(); err == nil {
			err = closeErr
		}
	}()
	if res.StatusCode != http.StatusOK {
		return usage{}, fmt.Errorf("HTTP %d", res.StatusCode)
	}
	fields := map[string]*float64{
		"process_cpu_seconds_total":     &u.cpu,
		"process_resident_memory_bytes": &u.resident,
		"go_goroutines":                 &u.goroutines,
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if field := fields[name]; ok && field != nil {
			if *field, err = strconv.ParseFloat(value, 64); err != nil {
				return usage{}, fmt.Errorf("%s: %w", name, err)
			}
			delete(fields, name)
		}
	}
	if err := lines.Err(); err != nil {
		return usage{}, err
	}
	if len(fields) > 0 {
		return usage{}, fmt.Errorf("%d of the figures are missing", len(fields))
	}
	return u, nil
}

// usage is what a server has used so far.
type usage struct {
	cpu        float64 // seconds
	resident   float64 // bytes
	goroutines float64
}
