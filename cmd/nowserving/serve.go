package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/handlers"
	"nowserving/handlers/api"
	"nowserving/notify"
	"nowserving/notify/push"
	"nowserving/realtime"
	"nowserving/realtime/presence"
)

const (
	// drainTimeout bounds the shutdown, in which live clients are asked to reconnect
	// and running requests end.
	drainTimeout = 15 * time.Second
	// linkPatience is how long the start waits for Redis to answer.
	linkPatience = time.Second
	// warmPatience is how long the start reads the longest queues ahead.
	warmPatience = 5 * time.Second
	// maxHeaderBytes bounds the headers of a request.
	maxHeaderBytes = 16 << 10
)

// serve runs one node until ctx ends. beside, unless nil, runs beside it and gets the
// node's URL. If it fails, the node stops.
func serve(ctx context.Context, c config, beside func(ctx context.Context, url string) error) (err error) {
	log := slog.Default()
	if (c.DatabaseURL == "") != (c.RedisURL == "") {
		log.Warn("only one of DATABASE_URL and REDIS_URL is set: run a single node, several must share both")
	}
	if c.TurnstileSecret != "" && c.TurnstileSiteKey == "" || c.RecaptchaSecret != "" && c.RecaptchaSiteKey == "" {
		log.Warn("a verifier has no site key here: sign-in does not work on our own pages, only for clients that bring one")
	}

	// Everything is closed in the reverse order of opening, also after an error.
	var opened []func() error
	defer func() {
		for i := len(opened) - 1; i >= 0; i-- {
			err = errors.Join(err, opened[i]())
		}
	}()

	db, err := openStore(ctx, c)
	if err != nil {
		return err
	}
	opened = append(opened, db.Close)
	if err := prepare(ctx, c, db); err != nil {
		return err
	}
	secret, err := c.secret()
	if err != nil {
		return err
	}
	rdb, closeRedis, err := store.OpenRedis(c.RedisURL)
	if err != nil {
		return err
	}
	opened = append(opened, closeRedis)

	index := queue.NewIndex(rdb, booking.NewSource(db), log)
	mirrors := queue.NewMirrors(index, time.Now, log)
	var notifier *notify.Service // made below, before anything can change
	catalogue := catalog.New(db, func(ctx context.Context, organizationID string) {
		if err := index.Rematch(ctx, organizationID); err != nil {
			mirrors.Invalidate(organizationID)
			log.Warn("the queue index did not take a change of the catalogue; it will be repaired", "organization", organizationID, "error", err)
		}
		if err := notifier.Pushes.Moved(ctx, organizationID); err != nil {
			log.Warn("phones are told of a change of the catalogue with the next visit only", "organization", organizationID, "error", err)
		}
	})
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", c.Addr, err)
	}
	opened = append(opened, func() error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	local := localURL(listener)
	receipts := reachable(c.PublicURL)
	if c.PublicURL == "" {
		c.PublicURL = local
	}

	registry := prometheus.NewRegistry()
	bookings := booking.New(db, catalogue, index, mirrors, log)
	var console io.Writer
	if c.Env == "development" {
		console = os.Stdout
	}
	shown := presence.NewPositions(rdb, db.Time)
	fcm := push.FCMOptions{Credentials: c.FCMCredentials, Endpoint: c.FCMEndpoint}
	if c.FCMHoldLive {
		fcm.Live = shown.Places
	}
	notifier, err = notify.New(ctx, notify.Options{
		Store: db, Bookings: bookings, Secret: secret, PublicURL: c.PublicURL, Receipts: receipts, Console: console,
		FCM: fcm, SMTPURL: c.SMTPURL, SMSURL: c.SMSURL, AllowPrivate: c.WebhookAllowPrivate, Now: db.Time, Log: log,
	})
	if err != nil {
		return err
	}
	canSend := notifier.Messages.CanSend
	if c.OTPFixedCode != "" {
		canSend = notifier.Messages.Configured // a code that everybody knows needs no console
	}
	revoked := queue.NewBroadcast(rdb)
	people, err := access.New(db, access.Options{
		Announce: revoked.Send,
		Secret:   secret, BootstrapKey: c.BootstrapKey, FixedCode: c.OTPFixedCode, EndlessCodes: c.endlessCodes, CanSend: canSend, CanSendCode: notifier.Messages.CanSendCode, Now: db.Time, Log: log,
		DailyCodes: c.OTPDailyLimit, CodeCountries: c.OTPCountries,
		Turnstile: access.Verifier{URL: c.TurnstileURL, Secret: c.TurnstileSecret}, Recaptcha: access.Verifier{URL: c.RecaptchaURL, Secret: c.RecaptchaSecret},
	})
	if err != nil {
		return err
	}

	// The handlers are the source of the live server, and the live server is one of
	// their routes.
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	service, err := handlers.New(handlers.Options{
		Options: api.Options{
			Bookings: bookings, Catalog: catalogue, Access: people, Store: db, Secret: secret, Log: log,
			Redis: rdb, Alone: c.RedisURL == "", RateLimit: c.RateLimit, TrustedProxies: c.TrustedProxies,
			PublicURL: c.PublicURL, AllowedOrigins: c.AllowedOrigins, Version: version(),
		},
		Mirrors: mirrors, Notify: notifier, DailyCodes: c.OTPDailyLimit, Metrics: metrics,
		Development: c.Env == "development", Challenges: c.challenges(),
	})
	if err != nil {
		return err
	}
	patients := presence.NewConnections(rdb, db.Time)
	hub := realtime.New(realtime.Options{
		Source: service.Live(), Mirrors: mirrors, Connections: patients, Log: log, Now: db.Time,
		AllowedOrigins: c.AllowedOrigins, PublicURL: c.PublicURL, PositionTick: c.PositionTick, Version: version(),
	})
	service.ServeLive(hub)
	measure(registry, db, hub, index, mirrors, bookings, notifier, log)
	if c.DebugAddr != "" {
		stopDebug, err := serveDebug(ctx, c.DebugAddr, metrics, log)
		if err != nil {
			return err
		}
		opened = append(opened, stopDebug)
	}
	inUse := newConnections()
	server := &http.Server{
		Handler: service, MaxHeaderBytes: maxHeaderBytes, ConnState: inUse.note,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}

	// The background work outlives ctx until the requests have ended.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { db.FollowClock(background) })
	running.Go(func() { db.WatchHangs(background) })
	running.Go(func() { mirrors.Run(background) })
	running.Go(func() { bookings.Sweep(background) })
	running.Go(func() { people.Watch(background, hub.Revoke, hub.CloseUnchecked) })
	var hearing error
	running.Go(func() { hearing = revoked.Run(background, people.Heard) })
	var counting error
	running.Go(func() {
		counting = patients.Run(background, hub.TooMany, func(err error) {
			log.Warn("other nodes may take this one for dead, and not count its patients", "error", err)
		})
	})
	running.Go(func() { people.Tally(background) })
	running.Go(func() { people.Forget(background) })
	if c.FCMHoldLive {
		running.Go(func() {
			shown.Run(background, hub.Shown, func(err error) { log.Warn("other nodes don't know who is connected here", "error", err) })
		})
	}
	var notifying error
	running.Go(func() { notifying = notifier.Run(background) })
	opened = append(opened, func() error { stop(); running.Wait(); return errors.Join(counting, notifying, hearing) })

	select {
	case <-mirrors.Up():
		warming, cancel := context.WithTimeout(ctx, warmPatience)
		if err := bookings.Warm(warming); err != nil {
			log.Warn("not everything was read before the first comes", "error", err)
		}
		cancel()
	case <-time.After(linkPatience): // a Redis that is away is no reason not to serve
	case <-ctx.Done():
	}

	setup, err := people.OpenSetup(ctx)
	if err != nil {
		return err
	}
	if setup != "" {
		// Printed, not logged: logs are kept and read by others.
		fmt.Printf("First start. Make the first account key, once, at %s/setup#%s\n", c.PublicURL, setup)
	}
	failed := make(chan error, 2)
	var front sync.WaitGroup
	front.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	log.Info("serving", "address", listener.Addr().String(), "url", c.PublicURL)
	besideCtx, stopBeside := context.WithCancel(ctx)
	defer stopBeside()
	if beside != nil {
		front.Go(func() {
			if err := beside(besideCtx, local); err != nil && besideCtx.Err() == nil {
				failed <- err
			}
		})
	}
	select {
	case err = <-failed:
	case <-ctx.Done():
		log.Info("stopping")
	}
	stopBeside()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	// Keep serving requests but send Connection: close; ask WebSocket clients to
	// reconnect elsewhere; then stop accepting.
	service.Stop()
	err = errors.Join(err, hub.Shutdown(drain))
	unused := quiet
	if c.DatabaseURL == "" {
		unused /= 4 // a single node has no other to hand over to, and a person waits for it to end
	}
	err = errors.Join(err, inUse.leave(drain, unused), server.Shutdown(drain))
	front.Wait()
	return err
}

// version returns the version of the build: a tag, or a pseudo-version with the
// commit of a local build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// reachable reports whether a public URL is reachable from the internet. Twilio
// refuses a message whose callback URL is not.
func reachable(publicURL string) bool {
	u, err := url.Parse(publicURL)
	if err != nil || !strings.Contains(strings.Trim(u.Hostname(), "."), ".") {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return err != nil || ip.IsGlobalUnicast() && !ip.IsPrivate()
}

// localURL returns the listener's URL on this machine.
func localURL(l net.Listener) string {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return "http://" + l.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
