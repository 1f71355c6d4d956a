package store

import (
	"context"
	"fmt"
	"sync"
	"time"

	"gorm.io/gorm"
)

const (
	// MaxClockOffset is how far this machine's clock may differ from the
	// database's. The service does not use this machine's clock, but other
	// programs on the machine do, and so do TLS and the push services.
	MaxClockOffset = 10 * time.Minute
	// smallOffset is how far it may differ before /readyz names it.
	smallOffset = 5 * time.Second
	// clockEvery is how often the database's clock is read while no transaction
	// reads it.
	clockEvery = time.Second
	// clockTimeout bounds one reading.
	clockTimeout = 2 * time.Second
)

// databaseClock follows the database's clock between readings, by the monotonic clock
// of this process: changes of this machine's own clock have no effect on it.
type databaseClock struct {
	machine func() time.Time
	shared  bool // PostgreSQL, which has a clock of its own

	mu sync.RWMutex
	at time.Time     // when the last reading came; its monotonic part counts
	db time.Duration // the database's clock then, since 1970
}

// now is the database's time, at microsecond precision as PostgreSQL stores it.
func (c *databaseClock) now() time.Time {
	if !c.shared {
		return c.machine().UTC().Truncate(time.Microsecond)
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	return time.Unix(0, int64(c.db+time.Since(c.at))).UTC().Truncate(time.Microsecond)
}

// learn takes in a reading that was asked for at a moment and has just come. The
// database's clock is now at least the reading, and at most the reading plus the
// round trip. The estimate moves only if it is outside these bounds, so it does
// not jump about with the delays of the network.
func (c *databaseClock) learn(reading, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	came := time.Now()
	least := time.Duration(reading.UnixNano())
	if c.at.IsZero() {
		c.db = least
	} else {
		c.db = min(max(c.db+came.Sub(c.at), least), least+came.Sub(asked))
	}
	c.at = came
}

// Time returns the database's time without asking the database: within about a
// round trip of its clock, whatever this machine's clock shows. With SQLite it is
// the clock of Options.
func (s *Store) Time() time.Time { return s.clock.now() }

// ClockOffset returns how far this machine's clock is ahead of the database's;
// negative if it is behind.
func (s *Store) ClockOffset() time.Duration { return s.clock.machine().Sub(s.clock.now()) }

// Now reads the database's clock.
func (s *Store) Now(ctx context.Context) (time.Time, error) { return s.readClock(s.Read(ctx)) }

func (s *Store) readClock(db *gorm.DB) (time.Time, error) {
	if !s.Postgres() {
		return s.Time(), nil
	}
	asked := time.Now()
	var reading time.Time
	if err := db.Raw("SELECT clock_timestamp()").Row().Scan(&reading); err != nil {
		return time.Time{}, fmt.Errorf("read the database's clock: %w", err)
	}
	s.clock.learn(reading, asked)
	return reading.UTC(), nil
}

// FollowClock keeps Time right until ctx ends: it reads the database's clock
// every second. While the database does not answer, Time goes on from the last
// reading. It logs when this machine's clock is off.
func (s *Store) FollowClock(ctx context.Context) {
	if !s.Postgres() {
		return
	}
	ticker := time.NewTicker(clockEvery)
	defer ticker.Stop()
	off := false
	for {
		if _, err := s.ClockError(); (err != nil) != off {
			off = err != nil
			if off {
				s.log.Warn("this machine's clock is wrong", "offset", s.ClockOffset().Round(time.Second))
			} else {
				s.log.Info("this machine's clock is right again")
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		reading, cancel := context.WithTimeout(ctx, clockTimeout)
		if _, err := s.Now(reading); err != nil && ctx.Err() == nil {
			s.log.Debug("the database's clock can't be read", "error", err)
		}
		cancel()
	}
}

// ClockError says by how much this machine's clock is off; nil if by no more than
// five seconds. wrong says that it is off by more than MaxClockOffset.
func (s *Store) ClockError() (wrong bool, err error) {
	offset := s.ClockOffset().Round(time.Second)
	if offset.Abs() <= smallOffset {
		return false, nil
	}
	side := "ahead of"
	if offset < 0 {
		side = "behind"
	}
	err = fmt.Errorf("this machine's clock is %s %s the database's; set it by NTP", offset.Abs(), side)
	return offset.Abs() > MaxClockOffset, err
}
