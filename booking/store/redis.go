package store

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

const (
	// dialTimeout bounds connecting. Commands are bounded by their callers'
	// contexts, and commandTimeout is for those that have none.
	dialTimeout    = time.Second
	commandTimeout = 10 * time.Second
	// tick moves the in-process Redis's clock, which stands still by itself.
	tick = 50 * time.Millisecond
)

// OpenRedis connects to the Redis of a URL: redis:// or rediss:// for a single
// server, with +sentinel (query master_name) or +cluster (query addr, several
// times) after the scheme for the others. Without a URL it starts one inside
// the process, which forgets everything at the end. close stops it.
//
// A server that is not there yet is no error: the service works without it,
// and links to it when it comes.
func OpenRedis(url string) (rdb redis.UniversalClient, closeAll func() error, err error) {
	if url == "" {
		return openEmbedded()
	}
	scheme, rest, _ := strings.Cut(url, "://")
	base, kind, _ := strings.Cut(scheme, "+")
	plain := base + "://" + rest
	switch kind {
	case "":
		o, err := redis.ParseURL(url)
		if err != nil {
			return nil, nil, fmt.Errorf("read REDIS_URL: %w", err)
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = dialTimeout, commandTimeout, commandTimeout
		o.ContextTimeoutEnabled, o.MaxRetries = true, 1
		rdb = redis.NewClient(o)
	case "sentinel":
		o, err := redis.ParseFailoverURL(plain)
		if err != nil {
			return nil, nil, fmt.Errorf("read REDIS_URL: %w", err)
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = dialTimeout, commandTimeout, commandTimeout
		o.ContextTimeoutEnabled, o.MaxRetries = true, 1
		rdb = redis.NewFailoverClient(o)
	case "cluster":
		o, err := redis.ParseClusterURL(plain)
		if err != nil {
			return nil, nil, fmt.Errorf("read REDIS_URL: %w", err)
		}
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = dialTimeout, commandTimeout, commandTimeout
		o.ContextTimeoutEnabled = true
		rdb = redis.NewClusterClient(o)
	default:
		return nil, nil, fmt.Errorf("read REDIS_URL: scheme %q is none of redis, rediss, redis+sentinel, redis+cluster", scheme)
	}
	return rdb, rdb.Close, nil
}

func openEmbedded() (redis.UniversalClient, func() error, error) {
	server := miniredis.NewMiniRedis()
	if err := server.Start(); err != nil {
		return nil, nil, fmt.Errorf("start the in-process Redis: %w", err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), DialTimeout: dialTimeout, ReadTimeout: commandTimeout, ContextTimeoutEnabled: true})
	ctx, stop := context.WithCancel(context.Background())
	var clock sync.WaitGroup
	clock.Go(func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				server.FastForward(tick)
			case <-ctx.Done():
				return
			}
		}
	})
	return rdb, func() error {
		stop()
		clock.Wait()
		err := rdb.Close()
		server.Close()
		return err
	}, nil
}
