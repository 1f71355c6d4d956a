package node

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"nowserving/notify"
)

// measure registers the metrics of all parts.
func (n *Node) measure(registry *prometheus.Registry) {
	db, hub, index, mirrors, bookings, notifier, log := n.Store, n.Hub, n.Index, n.Mirrors, n.Bookings, n.Notify, n.log
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &deliveries{notifier, log})
	gauge := func(name, help string, read func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "nowserving_" + name, Help: help}, read))
	}
	counter := func(name, help string, read func() float64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "nowserving_" + name, Help: help}, read))
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nowserving_build_info", Help: "1, with the version of this build.",
		ConstLabels: prometheus.Labels{"version": Version(), "go": runtime.Version()},
	}, func() float64 { return 1 }))
	gauge("clock_offset_seconds", "How far this machine's clock is ahead of the database's; negative if it is behind.",
		func() float64 { return db.ClockOffset().Seconds() })
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
	counter("redis_links_lost_total", "Times a subscription to Redis has broken or gone silent.", func() float64 { return float64(mirrors.LinksLost()) })
	counter("index_repairs_total", "Bookings found wrong in the queue index and mended.", func() float64 {
		n, _ := index.Repairs()
		return float64(n)
	})
	counter("index_rebuilds_total", "Times an organization's queue index was rebuilt from the database.", func() float64 {
		_, n := index.Repairs()
		return float64(n)
	})
	counter("reminders_dropped_total", "Reminders of appointments whose moment had passed by more than its tolerance.", func() float64 {
		return float64(bookings.RemindersDropped())
	})
	gauge("connections", "Live connections.", func() float64 { return float64(hub.Stats().Connections) })
	gauge("subscriptions", "Channels watched by live connections.", func() float64 { return float64(hub.Stats().Subscriptions) })
	counter("publications_total", "Publications sent to live connections.", func() float64 { return float64(hub.Stats().Publications) })
	counter("conflated_total", "Positions replaced by a newer one before they were sent.", func() float64 { return float64(hub.Stats().Conflated) })
	counter("uncounted_connections_total", "Live connections that the limit of a patient's connections did not count.", func() float64 { return float64(hub.Stats().Uncounted) })
	counter("dropped_total", "Live connections closed because they did not read.", func() float64 { return float64(hub.Stats().Dropped) })
}

// deliveries collects the outcomes of deliveries.
type deliveries struct {
	notifier *notify.Service
	log      *slog.Logger
}

var (
	notificationsTotal = prometheus.NewDesc("nowserving_notifications_total",
		"Deliveries by what became of them; a retry is an attempt that failed and is followed by another.", []string{"channel", "result"}, nil)
	notificationsOldest = prometheus.NewDesc("nowserving_notifications_oldest_due_seconds",
		"How long ago the oldest job that is not done should have been, on all nodes; 0 when nothing is due.", []string{"queue"}, nil)
	positionSweeps = prometheus.NewDesc("nowserving_position_sweeps_total",
		"Times the places of an organization were looked through for those to tell.", nil, nil)
	positionsTold = prometheus.NewDesc("nowserving_positions_told_total",
		"Places told to patients' phones and to webhooks by those sweeps.", nil, nil)
)

// oldestTimeout bounds the database query of a scrape.
const oldestTimeout = 2 * time.Second

// Describe implements prometheus.Collector.
func (d *deliveries) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{notificationsTotal, notificationsOldest, positionSweeps, positionsTold} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (d *deliveries) Collect(metrics chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, n uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	stats := d.notifier.Counts()
	for o, n := range stats.Outcomes {
		counter(notificationsTotal, n, o.Channel, o.Result)
	}
	counter(positionSweeps, stats.Sweeps)
	counter(positionsTold, stats.PositionsTold)

	ctx, cancel := context.WithTimeout(context.Background(), oldestTimeout)
	defer cancel()
	oldest, err := d.notifier.OldestDue(ctx)
	if err != nil { // everything else can still be seen
		d.log.Warn("the age of the oldest delivery is not known", "error", err)
		return
	}
	for queue, age := range oldest {
		metrics <- prometheus.MustNewConstMetric(notificationsOldest, prometheus.GaugeValue, age.Seconds(), queue)
	}
}
