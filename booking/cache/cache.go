// Package cache keeps values in memory for a short time after they were read.
package cache

import (
	"context"
	"maps"
	"sync"
	"time"
)

// Cache keeps values by key. Life and Max must be set before the first use. Its methods
// may be called concurrently.
type Cache[K comparable, V any] struct {
	// Life is the age at which a value is no longer returned by Get.
	Life time.Duration
	// Max is the largest number of keys. A new key beyond it replaces a random one.
	Max int

	mu      sync.Mutex
	entries map[K]*entry[V]
}

type entry[V any] struct {
	reading chan struct{} // holds one while a caller reads for all

	// Guarded by Cache.mu.
	value V
	began time.Time // the reading of the value; zero if there is none
}

// Get returns the value of a key, at most Life old. If it is older than half of Life, one
// caller reads it again, and the others get the old value. If it is older than Life, the
// others wait for that caller or the end of ctx. Get returns the error of read, which
// leaves the cache unchanged.
func (c *Cache[K, V]) Get(ctx context.Context, key K, read func() (V, error)) (V, error) {
	e := c.entry(key)
	value, age := c.look(e)
	if age < c.Life/2 {
		return value, nil
	}
	select {
	case e.reading <- struct{}{}:
	default:
		if age < c.Life {
			return value, nil
		}
		select {
		case e.reading <- struct{}{}:
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
	}
	defer func() { <-e.reading }()
	if value, age = c.look(e); age < c.Life/2 {
		return value, nil // another caller has read it meanwhile
	}
	began := time.Now()
	value, err := read()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		e.value, e.began = value, began // without effect if the entry was forgotten meanwhile
	case e.began.IsZero() && c.entries[key] == e:
		delete(c.entries, key)
	}
	return value, err
}

// entry returns the entry of a key, which it makes if there is none.
func (c *Cache[K, V]) entry(key K) *entry[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil {
		if c.entries == nil {
			c.entries = map[K]*entry[V]{}
		}
		if len(c.entries) >= c.Max {
			for other := range c.entries { // in random order
				delete(c.entries, other)
				break
			}
		}
		e = &entry[V]{reading: make(chan struct{}, 1)}
		c.entries[key] = e
	}
	return e
}

// look returns the value of an entry and its age.
func (c *Cache[K, V]) look(e *entry[V]) (V, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.value, time.Since(e.began)
}

// Peek returns the value of a key and its age, however old it is, and reads nothing. It
// returns false if there is none.
func (c *Cache[K, V]) Peek(key K) (value V, age time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e == nil || e.began.IsZero() {
		return value, 0, false
	}
	return e.value, time.Since(e.began), true
}

// Forget drops the value of a key after a change. A later Get reads it, even if a reading
// that began before the change has yet to end.
func (c *Cache[K, V]) Forget(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, key)
}

// ForgetValues is Forget for all keys whose value meets a condition.
func (c *Cache[K, V]) ForgetValues(condition func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.entries, func(_ K, e *entry[V]) bool { return !e.began.IsZero() && condition(e.value) })
}
