package cache_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"nowserving/booking/cache"
)

// source is read into a cache. A reading takes a second and returns the value at its
// beginning.
type source struct {
	value, reads int
	err          error
}

func (s *source) read() (int, error) {
	s.reads++
	value, err := s.value, s.err
	<-time.After(time.Second)
	return value, err
}

// reader returns a Get whose value must be there after a time.
func reader(t *testing.T, c *cache.Cache[string, int], s *source) func(value int, after time.Duration) {
	t.Helper()
	return func(value int, after time.Duration) {
		t.Helper()
		began := time.Now()
		got, err := c.Get(t.Context(), "a", s.read)
		require.NoError(t, err)
		assert.Equal(t, value, got)
		assert.Equal(t, after, time.Since(began))
	}
}

func TestOneCallerReadsForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := &cache.Cache[string, int]{Life: 10 * time.Second, Max: 2}, &source{value: 1}
		get := reader(t, c, s)
		go get(1, time.Second)
		synctest.Wait()
		get(1, time.Second) // waits for the first reading
		assert.Equal(t, 1, s.reads)

		s.value = 2
		<-time.After(3 * time.Second)
		get(1, 0) // half of the life is not over
		<-time.After(2 * time.Second)
		go get(2, time.Second)
		synctest.Wait()
		get(1, 0) // the old value, while the other caller reads
		<-time.After(time.Second)
		synctest.Wait()
		get(2, 0)
		assert.Equal(t, 2, s.reads)

		s.value = 3
		<-time.After(10 * time.Second)
		go get(3, time.Second)
		synctest.Wait()
		get(3, time.Second) // the old value is too old
		assert.Equal(t, 3, s.reads)

		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		<-time.After(10 * time.Second)
		go get(3, time.Second)
		synctest.Wait()
		_, err := c.Get(ctx, "a", s.read)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-time.After(time.Second)
	})
}

func TestForgottenValuesAreNotReturned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := &cache.Cache[string, int]{Life: 10 * time.Second, Max: 2}, &source{value: 1}
		get := reader(t, c, s)
		go get(1, time.Second)
		synctest.Wait()
		s.value = 2
		c.Forget("a")
		get(2, time.Second) // the first reading has ended, and its value is not kept
		get(2, 0)
		assert.Equal(t, 2, s.reads)

		c.ForgetValues(func(v int) bool { return v == 1 })
		get(2, 0)
		c.ForgetValues(func(v int) bool { return v == 2 })
		get(2, time.Second)
	})
}

func TestFailuresKeepTheOldValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := &cache.Cache[string, int]{Life: 10 * time.Second, Max: 2}, &source{value: 1, err: errors.New("down")}
		_, err := c.Get(t.Context(), "a", s.read)
		require.ErrorIs(t, err, s.err)
		_, _, ok := c.Peek("a")
		assert.False(t, ok)

		s.err = nil
		reader(t, c, s)(1, time.Second)
		s.err = errors.New("down")
		<-time.After(20 * time.Second)
		_, err = c.Get(t.Context(), "a", s.read)
		require.ErrorIs(t, err, s.err)
		value, age, ok := c.Peek("a")
		assert.True(t, ok)
		assert.Equal(t, 1, value)
		assert.Equal(t, 22*time.Second, age, "since the reading began")
	})
}

func TestANewKeyBeyondMaxReplacesAnother(t *testing.T) {
	t.Parallel()
	c := cache.Cache[int, int]{Life: time.Hour, Max: 2}
	for key := range 3 {
		_, err := c.Get(t.Context(), key, func() (int, error) { return key, nil })
		require.NoError(t, err)
	}
	kept := 0
	for key := range 3 {
		if _, _, ok := c.Peek(key); ok {
			kept++
		}
	}
	assert.Equal(t, 2, kept)
	_, _, ok := c.Peek(2)
	assert.True(t, ok, "the newest")
}
