package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"nowserving/booking/clock"
	"nowserving/booking/store"
)

const (
	// purgeEvery is how often the contents of deleted rows are looked for.
	purgeEvery = 10 * time.Second
	// sweepEvery is how often the bucket is compared with the rows.
	sweepEvery = time.Hour
	// orphanAge is how old a content without a row is when it is removed. A request that
	// has stored it may still insert the row.
	orphanAge = time.Hour
	// batchSize bounds what is looked for at once.
	batchSize = 500
)

// namedByBooking is met by a file whose address is in a booking of its customer: a new
// booking may repeat the address of an older one's file.
const namedByBooking = `EXISTS (SELECT 1 FROM bookings b WHERE b.organization_id = files.organization_id AND b.customer_id = files.customer_id
	AND CAST(b.info AS text) LIKE '%/' || files.id || '/%')`

// unused is met by a file of a booking that is gone, if neither another booking nor the
// profile of its customer has its address.
const unused = `booking_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM bookings b WHERE b.id = files.booking_id)
	AND NOT ` + namedByBooking + ` AND NOT EXISTS (SELECT 1 FROM customers c WHERE c.id = files.customer_id
	AND CAST(c.data AS text) LIKE '%/' || files.id || '/%')`

// removal is a content that has to be removed from the bucket.
type removal struct {
	Key         string `gorm:"primaryKey"`
	RequestedAt time.Time
}

// TableName implements gorm's Tabler.
func (removal) TableName() string { return "file_removals" }

// remove deletes the rows that meet a condition, and notes their contents for removal.
func remove(tx *store.Tx, condition string, args ...any) error {
	noted := append([]any{tx.Now}, args...)
	err := tx.Exec(`INSERT INTO file_removals (key, requested_at) SELECT organization_id || '/' || id, ? FROM files WHERE `+condition+
		` ON CONFLICT (key) DO NOTHING`, noted...).Error
	if err == nil {
		err = tx.Exec("DELETE FROM files WHERE "+condition, args...).Error
	}
	if err != nil {
		return fmt.Errorf("delete files: %w", err)
	}
	return nil
}

// Run removes contents until ctx ends: every 10 s those of deleted rows, and every hour
// those of bookings that are gone and those without a row.
func (s *Service) Run(ctx context.Context) {
	if s.bucket == nil {
		<-ctx.Done()
		return
	}
	var swept time.Time
	clock.Every(ctx, purgeEvery, func() {
		err := s.Purge(ctx)
		if time.Since(swept) >= sweepEvery {
			swept = time.Now()
			err = errors.Join(err, s.Sweep(ctx))
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("files were not removed; it is tried again", "error", err)
		}
	})
}

// Purge removes the contents of the rows that were deleted. Call it after the commit of
// an erasure; what fails is tried again by Run.
func (s *Service) Purge(ctx context.Context) error {
	if s.bucket == nil {
		return errNoBucket
	}
	last := ""
	var failed error
	for {
		var list []removal
		if err := s.store.Read(ctx).Where("key > ?", last).Order("key").Limit(batchSize).Find(&list).Error; err != nil {
			return errors.Join(failed, fmt.Errorf("find files to remove: %w", err))
		}
		var done []string
		for _, r := range list {
			last = r.Key
			if err := s.delete(ctx, r.Key); err != nil {
				failed = err
				continue
			}
			done = append(done, r.Key)
		}
		if len(done) > 0 {
			err := s.store.Tx(ctx, func(tx *store.Tx) error { return tx.Where("key IN ?", done).Delete(&removal{}).Error })
			if err != nil {
				return errors.Join(failed, fmt.Errorf("forget files that were removed: %w", err))
			}
		}
		if len(list) < batchSize || ctx.Err() != nil {
			return failed
		}
	}
}

// Sweep deletes the files of bookings that are gone, and removes the contents that are
// older than an hour and have no row.
func (s *Service) Sweep(ctx context.Context) error {
	err := s.store.Tx(ctx, func(tx *store.Tx) error { return remove(tx, unused) })
	if err == nil {
		err = s.Purge(ctx)
	}
	return errors.Join(err, s.sweepOrphans(ctx))
}

func (s *Service) sweepOrphans(ctx context.Context) error {
	var failed error
	before := time.Now().Add(-orphanAge)
	for token := blob.FirstPageToken; token != nil; {
		page, next, err := s.page(ctx, token)
		if err != nil {
			return errors.Join(failed, err)
		}
		token = next
		var old []string
		for _, object := range page {
			if !object.IsDir && object.ModTime.Before(before) {
				old = append(old, object.Key)
			}
		}
		orphans, err := s.orphans(ctx, old)
		if err != nil {
			return errors.Join(failed, err)
		}
		for _, key := range orphans {
			if err := s.delete(ctx, key); err != nil {
				failed = err
			}
		}
		if len(orphans) > 0 {
			s.log.Info("contents without a row were removed", "files", len(orphans))
		}
	}
	return failed
}

func (s *Service) page(ctx context.Context, token []byte) ([]*blob.ListObject, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	page, next, err := s.bucket.ListPage(ctx, token, batchSize, nil)
	if errors.Is(err, io.EOF) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list the bucket: %s", gcerrors.Code(err))
	}
	return page, next, nil
}

// orphans returns the keys that no row has.
func (s *Service) orphans(ctx context.Context, keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = keyID(key)
	}
	var rows []File
	if err := s.store.Read(ctx).Select("id, organization_id").Where("id IN ?", ids).Find(&rows).Error; err != nil {
		return nil, fmt.Errorf("look for the rows of files: %w", err)
	}
	known := make(map[string]bool, len(rows))
	for i := range rows {
		known[rows[i].key()] = true
	}
	var orphans []string
	for _, key := range keys {
		if !known[key] {
			orphans = append(orphans, key)
		}
	}
	return orphans, nil
}

// delete removes a content. One that is gone counts as removed. The error does not name
// the content, because its id is a credential.
func (s *Service) delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := s.bucket.Delete(ctx, key)
	if err == nil || gcerrors.Code(err) == gcerrors.NotFound {
		return nil
	}
	return fmt.Errorf("remove a content: %s", gcerrors.Code(err))
}
