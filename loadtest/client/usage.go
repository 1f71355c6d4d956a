package client

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Usage returns the sum of the nodes' resource usage so far.
func (a *API) Usage(ctx context.Context) (Usage, error) {
	pages := make([]string, len(a.Nodes))
	for i, node := range a.Nodes {
		pages[i] = node + "/metrics"
	}
	return ScrapeUsage(ctx, a.http, a.Key, pages)
}

// ScrapeUsage reads metrics pages in the text format of Prometheus and adds up their usage. If
// key is not empty, it is sent as a bearer token.
func ScrapeUsage(ctx context.Context, conn *http.Client, key string, pages []string) (Usage, error) {
	var sum Usage
	for _, page := range pages {
		u, err := scrapeOne(ctx, conn, key, page)
		if err != nil {
			return Usage{}, fmt.Errorf("read %s: %w", page, err)
		}
		sum.CPU += u.CPU
		sum.Resident += u.Resident
		sum.Goroutines += u.Goroutines
	}
	return sum, nil
}

func scrapeOne(ctx context.Context, conn *http.Client, key, page string) (u Usage, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return Usage{}, err
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := conn.Do(req)
	if err != nil {
		return Usage{}, err
	}
	defer func() {
		if closeErr := res.Body.Close(); err == nil {
			err = closeErr
		}
	}()
	if res.StatusCode != http.StatusOK {
		return Usage{}, fmt.Errorf("HTTP %d", res.StatusCode)
	}
	fields := map[string]*float64{
		"process_cpu_seconds_total":     &u.CPU,
		"process_resident_memory_bytes": &u.Resident,
		"go_goroutines":                 &u.Goroutines,
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if field := fields[name]; ok && field != nil {
			if *field, err = strconv.ParseFloat(value, 64); err != nil {
				return Usage{}, fmt.Errorf("%s: %w", name, err)
			}
			delete(fields, name)
		}
	}
	if err := lines.Err(); err != nil {
		return Usage{}, err
	}
	if len(fields) > 0 {
		return Usage{}, fmt.Errorf("%d of the figures are missing", len(fields))
	}
	return u, nil
}

// Usage is the resource usage of a server so far.
type Usage struct {
	CPU        float64 // seconds
	Resident   float64 // bytes
	Goroutines float64
}
