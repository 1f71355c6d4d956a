package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"nowserving/booking/queue"
	"nowserving/realtime"
)

// measure shows what the parts count about themselves.
func measure(registry *prometheus.Registry, hub *realtime.Hub, index *queue.Index, mirrors *queue.Mirrors) {
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge := func(name, help string, read func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "nowserving_" + name, Help: help}, read))
	}
	counter := func(name, help string, read func() float64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "nowserving_" + name, Help: help}, read))
	}
	gauge("redis_linked", "1 while the subscription to Redis answers.", func() float64 {
		if mirrors.Linked() {
			return 1
		}
		return 0
	})
	gauge("redis_silent_seconds", "For how long Redis, or a shard of it, has not answered; 0 while all do.", func() float64 {
		length, silent := mirrors.Silence()
		if !silent {
			return 0
		}
		return length.Seconds()
	})
	counter("redis_links_lost_total", "Times a subscription to Redis has broken or gone silent.", func() float64 { return float64(mirrors.Lost()) })
	counter("index_repairs_total", "Bookings found wrong in the queue index and mended.", func() float64 {
		n, _ := index.Repairs()
		return float64(n)
	})
	counter("index_rebuilds_total", "Times an organization's queue index was rebuilt from the database.", func() float64 {
		_, n := index.Repairs()
		return float64(n)
	})
	gauge("connections", "Live connections.", func() float64 { return float64(hub.Stats().Connections) })
	gauge("subscriptions", "Channels watched by live connections.", func() float64 { return float64(hub.Stats().Subscriptions) })
	counter("publications_total", "Publications sent to live connections.", func() float64 { return float64(hub.Stats().Publications) })
	counter("conflated_total", "Positions replaced by a newer one before they were sent.", func() float64 { return float64(hub.Stats().Conflated) })
	counter("dropped_total", "Live connections closed because they did not read.", func() float64 { return float64(hub.Stats().Dropped) })
}
