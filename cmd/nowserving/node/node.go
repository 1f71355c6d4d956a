// Package node wires the parts of the service into one process: what is opened, in
// which order the parts start, and how they stop. The commands serve and demo run a
// Node, and so does every test through nodetest.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"

	"nowserving/booking"
	"nowserving/booking/access"
	"nowserving/booking/catalog"
	"nowserving/booking/customers"
	"nowserving/booking/files"
	"nowserving/booking/privacy"
	"nowserving/booking/queue"
	"nowserving/booking/store"
	"nowserving/handlers"
	"nowserving/handlers/api"
	"nowserving/handlers/live"
	"nowserving/notify"
	"nowserving/notify/push"
	"nowserving/realtime"
	"nowserving/realtime/presence"
)

const (
	// DrainTimeout bounds the shutdown, in which live clients are asked to reconnect
	// and running requests end.
	DrainTimeout = 15 * time.Second
	// redisTimeout is how long the start waits for Redis to answer.
	redisTimeout = time.Second
	// warmTimeout is how long the start reads the longest queues ahead.
	warmTimeout = 5 * time.Second
	// maxHeaderBytes bounds the headers of a request.
	maxHeaderBytes = 16 << 10
)

// Node is one process of the service.
type Node struct {
	// URL is the node's own address on this machine.
	URL string

	Store     *store.Store
	Redis     redis.UniversalClient
	Index     *queue.Index
	Mirrors   *queue.Mirrors
	Catalog   *catalog.Catalog
	Bookings  *booking.Service
	Files     *files.Service
	Access    *access.Access
	Customers *customers.Customers
	Notify    *notify.Service
	API       *api.API
	Handlers  *handlers.Server
	Hub       *realtime.Hub

	config     Config
	log        *slog.Logger
	listener   net.Listener
	components []component    // run in the background
	opened     []func() error // closed in the reverse order
	serving    chan struct{}
}

// component is a part of the service that works in the background until its context
// ends.
type component struct {
	name string
	run  func(context.Context) error
}

// New opens the database, Redis and the listener that the configuration names, brings
// an embedded schema up to date and wires all parts. Nothing is answered and no
// background work is done before Run. The caller calls Close, unless New fails.
func New(ctx context.Context, c Config) (_ *Node, err error) {
	n := &Node{config: c, log: c.Log, serving: make(chan struct{})}
	if n.log == nil {
		n.log = slog.Default()
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	n.warnOfHalfSetups()
	secret, err := n.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := n.wire(ctx, secret); err != nil {
		return nil, err
	}
	return n, nil
}

// warnOfHalfSetups logs combinations of settings that work but are rarely meant.
func (n *Node) warnOfHalfSetups() {
	c := &n.config
	if (c.DatabaseURL == "") != (c.RedisURL == "") {
		n.log.Warn("only one of DATABASE_URL and REDIS_URL is set: run a single node, several must share both")
	}
	if c.Env == "production" && c.DatabaseURL != "" && c.BlobURL == "" {
		n.log.Warn("NOWSERVING_BLOB_URL is not set: uploaded files are kept in the data folder of this node, and other nodes don't find them")
	}
	if c.TurnstileSecret != "" && c.TurnstileSiteKey == "" || c.RecaptchaSecret != "" && c.RecaptchaSiteKey == "" {
		n.log.Warn("a verifier has no site key here: sign-in does not work on our own pages, only for clients that bring one")
	}
}

// open opens the database, Redis and the listener, and reads the secret.
func (n *Node) open(ctx context.Context) (secret []byte, err error) {
	c := &n.config
	if n.Store, err = c.OpenStore(ctx); err != nil {
		return nil, err
	}
	n.opened = append(n.opened, n.Store.Close)
	adjust(c.Adjust.Store, n.Store)
	if err := c.Prepare(ctx, n.Store); err != nil {
		return nil, err
	}
	if secret, err = c.Secret(); err != nil {
		return nil, err
	}
	rdb, closeRedis, err := store.OpenRedis(c.RedisURL)
	if err != nil {
		return nil, err
	}
	n.Redis = rdb
	n.opened = append(n.opened, closeRedis)
	n.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", c.Addr, err)
	}
	n.opened = append(n.opened, func() error {
		if err := n.listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	n.URL = localURL(n.listener)
	return secret, nil
}

// wire makes the parts, from the database up to HTTP.
func (n *Node) wire(ctx context.Context, secret []byte) error {
	receipts := reachable(n.config.PublicURL)
	if n.config.PublicURL == "" {
		n.config.PublicURL = n.URL
	}
	if err := n.openFiles(ctx); err != nil {
		return err
	}
	n.wireBookings()
	shown := presence.NewPositions(n.Redis, n.Store.Time)
	if err := n.wireNotify(ctx, secret, receipts, shown); err != nil {
		return err
	}
	revoked := queue.NewBroadcast(n.Redis)
	if err := n.wireAccess(secret, revoked); err != nil {
		return err
	}
	if err := n.wireHub(secret, shown); err != nil {
		return err
	}
	n.components = append(n.components,
		component{"read revocations", func(ctx context.Context) error { n.Access.Watch(ctx, n.Hub.Revoke, n.Hub.CloseUnchecked); return nil }},
		component{"receive revocations", func(ctx context.Context) error { return revoked.Run(ctx, n.Access.Heard) }},
	)
	return n.wireHandlers(ctx)
}

// openFiles opens the bucket of files. The service works without it, except for files.
func (n *Node) openFiles(ctx context.Context) (err error) {
	c := &n.config
	opts := files.Options{Store: n.Store, URL: c.BlobURL, PublicURL: c.PublicURL, Log: n.log}
	if opts.URL == "" {
		if opts.URL, err = files.Folder(filepath.Join(c.Data, "files")); err != nil {
			return err
		}
	}
	n.Files, err = files.New(ctx, opts)
	if err != nil && c.BlobURL == "" && c.DatabaseURL != "" {
		// Such a node may need no folder for anything else.
		n.log.Warn("files can't be stored on this node: set NOWSERVING_BLOB_URL, or NOWSERVING_DATA to a folder that it may write", "error", err)
		n.Files = files.Without(opts)
		return nil
	}
	if err != nil {
		return err
	}
	n.opened = append(n.opened, n.Files.Close)
	if err := n.Files.Accessible(ctx); err != nil {
		n.log.Warn("the bucket of NOWSERVING_BLOB_URL can't be reached; files are neither stored nor served until it can", "error", err)
	}
	return nil
}

// wireBookings makes what keeps bookings, and the queues.
func (n *Node) wireBookings() {
	n.Index = queue.NewIndex(n.Redis, booking.NewSource(n.Store), n.log)
	n.Mirrors = queue.NewMirrors(n.Index, time.Now, n.log)
	n.Catalog = catalog.New(n.Store)
	n.Customers = customers.New(n.Store)
	n.Bookings = booking.New(n.Store, n.Catalog, n.Index, n.Mirrors, n.Files, n.log)
	n.components = append(n.components,
		component{"follow the database's clock", forever(n.Store.FollowClock)},
		component{"watch for a database that hangs", forever(n.Store.WatchHangs)},
		component{"follow the queues", forever(n.Mirrors.Run)},
		component{"keep deadlines", forever(n.Bookings.Sweep)},
		component{"remove files", forever(n.Files.Run)},
	)
}

// wireNotify makes what sends. receipts reports that PublicURL is reachable from the
// internet, and shown knows the positions that live clients have been shown.
func (n *Node) wireNotify(ctx context.Context, secret []byte, receipts bool, shown *presence.Positions) (err error) {
	c := &n.config
	opts := notify.Options{
		Store: n.Store, Bookings: n.Bookings, Secret: secret, PublicURL: c.PublicURL, Receipts: receipts, Console: c.Console,
		FCM:     push.FCMOptions{Credentials: c.FCMCredentials, Endpoint: c.FCMEndpoint},
		SMTPURL: c.SMTPURL, SMSURL: c.SMSURL, AllowPrivate: c.WebhookAllowPrivate, Now: n.Store.Time, Log: n.log,
	}
	if c.FCMHoldLive {
		opts.FCM.Live = shown.Places
	}
	if c.Console == nil && c.development() {
		opts.Console = os.Stdout
	}
	adjust(c.Adjust.Notify, &opts)
	n.Notify, err = notify.New(ctx, opts)
	if err != nil {
		return err
	}
	n.Catalog.OnChange(n.announceCatalog)
	n.components = append(n.components, component{"send", n.Notify.Run})
	return nil
}

// wireAccess makes what checks credentials. revoked announces ended ones to all nodes.
func (n *Node) wireAccess(secret []byte, revoked *queue.Broadcast) (err error) {
	c := &n.config
	opts := access.Options{
		Secret: secret, BootstrapKey: c.BootstrapKey, FixedCode: c.OTPFixedCode, EndlessCodes: c.EndlessCodes,
		CanSend: n.Notify.Messages.CanSend, CanSendCode: n.Notify.Messages.CanSendCode,
		DailyCodes: c.OTPDailyLimit, CodeCountries: c.OTPCountries,
		Turnstile: access.Verifier{URL: c.TurnstileURL, Secret: c.TurnstileSecret}, Recaptcha: access.Verifier{URL: c.RecaptchaURL, Secret: c.RecaptchaSecret},
		Announce: revoked.Send, Now: n.Store.Time, Log: n.log,
	}
	if c.OTPFixedCode != "" {
		opts.CanSend = n.Notify.Messages.Configured // a fixed code is known without a message
	}
	adjust(c.Adjust.Access, &opts)
	n.Access, err = access.New(n.Store, opts)
	if err != nil {
		return err
	}
	n.components = append(n.components,
		component{"count the use of keys", forever(n.Access.Tally)},
		component{"delete ended credentials", forever(n.Access.Forget)},
	)
	return nil
}

// wireHub makes the API, which has no routes yet, and the live server, which asks it.
func (n *Node) wireHub(secret []byte, shown *presence.Positions) (err error) {
	c := &n.config
	opts := api.Options{
		Bookings: n.Bookings, Catalog: n.Catalog, Access: n.Access, Customers: n.Customers, Store: n.Store, Secret: secret, Log: n.log,
		Redis: n.Redis, Alone: c.RedisURL == "", RateLimit: c.RateLimit, TrustedProxies: c.TrustedProxies,
		PublicURL: c.PublicURL, AllowedOrigins: c.AllowedOrigins, Version: Version(),
	}
	adjust(c.Adjust.API, &opts)
	n.API, err = api.New(opts)
	if err != nil {
		return err
	}
	patients := presence.NewConnections(n.Redis, n.Store.Time)
	adjust(c.Adjust.Presence, patients)
	connecting := realtime.Options{
		Source: live.New(n.API), Mirrors: n.Mirrors, Connections: patients, Log: n.log, Now: n.Store.Time,
		AllowedOrigins: c.AllowedOrigins, PublicURL: c.PublicURL, PositionTick: c.PositionTick, Version: Version(),
	}
	adjust(c.Adjust.Live, &connecting)
	n.Hub = realtime.New(connecting)
	n.components = append(n.components, component{"count the connections of patients", func(ctx context.Context) error {
		return patients.Run(ctx, n.Hub.TooMany, func(err error) {
			n.log.Warn("other nodes may take this one for dead, and not count its patients", "error", err)
		})
	}})
	if c.FCMHoldLive {
		n.components = append(n.components, component{"share the positions shown", func(ctx context.Context) error {
			shown.Run(ctx, n.Hub.Shown, func(err error) { n.log.Warn("other nodes don't know who is connected here", "error", err) })
			return nil
		}})
	}
	return nil
}

// wireHandlers makes the routes, and the operator's address if it is set.
func (n *Node) wireHandlers(ctx context.Context) (err error) {
	c := &n.config
	registry := prometheus.NewRegistry()
	n.measure(registry)
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	n.Handlers, err = handlers.New(handlers.Options{
		API: n.API, Live: n.Hub, Mirrors: n.Mirrors, Notify: n.Notify, DailyCodes: c.OTPDailyLimit, Metrics: metrics,
		Privacy: privacy.New(n.Store, n.log, n.Bookings.Erase, n.Access.Erase, n.Notify.Pushes.Erase, n.Notify.Webhooks.Erase,
			n.Notify.Messages.Erase, n.API.EraseAnswers, n.Files.Erase),
		Files:       n.Files,
		Development: c.development(), Challenges: c.challenges(),
	})
	if err != nil || c.DebugAddr == "" {
		return err
	}
	stopDebug, err := serveDebug(ctx, c.DebugAddr, metrics, n.log)
	if err != nil {
		return err
	}
	n.opened = append(n.opened, stopDebug)
	return nil
}

// forever makes a component of what ends with its context and cannot fail.
func forever(run func(context.Context)) func(context.Context) error {
	return func(ctx context.Context) error { run(ctx); return nil }
}

// announceCatalog applies a committed change of the catalogue to the queues and to
// the positions that are sent.
func (n *Node) announceCatalog(ctx context.Context, organizationID string) {
	if err := n.Index.Rematch(ctx, organizationID); err != nil {
		n.Mirrors.Invalidate(organizationID)
		n.log.Warn("the queue index did not take a change of the catalogue; it will be repaired", "organization", organizationID, "error", err)
	}
	if err := n.Notify.Pushes.Moved(ctx, organizationID); err != nil {
		n.log.Warn("phones are told of a change of the catalogue with the next visit only", "organization", organizationID, "error", err)
	}
}

// Serving is closed when Run answers requests.
func (n *Node) Serving() <-chan struct{} { return n.serving }

// Run serves until ctx ends. Then it drains, within 15 s: requests are still answered,
// with Connection: close, live clients are asked to reconnect to another node, and
// jobs under way end.
func (n *Node) Run(ctx context.Context) (err error) {
	// The background work outlives ctx until the requests have ended.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	failures := make([]error, len(n.components))
	for i, part := range n.components {
		running.Go(func() {
			if err := part.run(background); err != nil {
				failures[i] = fmt.Errorf("%s: %w", part.name, err)
			}
		})
	}
	defer func() {
		stop()
		running.Wait()
		err = errors.Join(err, errors.Join(failures...))
	}()
	n.warm(ctx)
	if err := n.offerSetup(ctx); err != nil {
		return err
	}

	inUse := newConnections()
	server := &http.Server{
		Handler: n.Handlers, MaxHeaderBytes: maxHeaderBytes, ConnState: inUse.note,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(n.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(n.listener); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	close(n.serving)
	n.log.Info("serving", "address", n.listener.Addr().String(), "url", n.config.PublicURL)
	select {
	case err = <-failed:
	case <-ctx.Done():
		n.log.Info("stopping")
	}
	err = errors.Join(err, n.drain(ctx, server, inUse))
	serving.Wait()
	return err
}

// warm reads the longest queues ahead, as soon as Redis answers. A Redis that is away
// is no reason not to serve.
func (n *Node) warm(ctx context.Context) {
	select {
	case <-n.Mirrors.Up():
		warming, cancel := context.WithTimeout(ctx, warmTimeout)
		defer cancel()
		if err := n.Bookings.Warm(warming); err != nil {
			n.log.Warn("not every queue was read before the first request", "error", err)
		}
	case <-time.After(redisTimeout):
	case <-ctx.Done():
	}
}

// offerSetup prints the link to make the first account key at the first start. It is
// printed, not logged, because logs are kept and read by others.
func (n *Node) offerSetup(ctx context.Context) error {
	setup, err := n.Access.OpenSetup(ctx)
	if err == nil && setup != "" {
		fmt.Printf("First start. Make the first account key, once, at %s/setup#%s\n", n.config.PublicURL, setup)
	}
	return err
}

// drain hands over to other nodes: requests are answered with Connection: close and
// WebSocket clients are asked to reconnect; then the node stops accepting.
func (n *Node) drain(ctx context.Context, server *http.Server, inUse *connections) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTimeout)
	defer cancel()
	n.Handlers.Stop()
	err := n.Hub.Shutdown(ctx)
	unused := quiet
	if n.config.DatabaseURL == "" {
		unused /= 4 // a single node has no other to hand over to, and a person waits for it to end
	}
	return errors.Join(err, inUse.leave(ctx, unused), server.Shutdown(ctx))
}

// Close closes what New opened.
func (n *Node) Close() error {
	var errs []error
	for i := len(n.opened) - 1; i >= 0; i-- {
		errs = append(errs, n.opened[i]())
	}
	n.opened = nil
	return errors.Join(errs...)
}

// Version returns the version of the build: a tag, or a pseudo-version with the
// commit of a local build.
func Version() string {
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
