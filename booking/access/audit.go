package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"nowserving/booking/store"
	"nowserving/models"
)

// AuditFilter narrows the audit. Empty fields narrow nothing.
type AuditFilter struct {
	BookingID, SubjectID, ActorID, Action string
	From, To                              time.Time
	// Before is the id of the last line of the previous page, or 0 for the first
	// page.
	Before int64
	Limit  int
}

// Audit lists lines of the audit, the newest first, and one more than the limit if
// there are more. Lines about the account have the organization "".
func (a *Access) Audit(ctx context.Context, organizationID string, f AuditFilter) ([]store.Audit, error) {
	q := a.store.Read(ctx).Where("organization_id = ?", organizationID)
	if f.BookingID != "" {
		q = q.Where("subject_id = ? AND subject_kind = 'booking'", f.BookingID)
	}
	for _, part := range []struct{ column, value string }{{"subject_id", f.SubjectID}, {"actor_id", f.ActorID}, {"action", f.Action}} {
		if part.value != "" {
			q = q.Where(part.column+" = ?", part.value)
		}
	}
	q = store.CreatedBetween(q, f.From, f.To)
	if f.Before > 0 {
		q = q.Where("id < ?", f.Before)
	}
	var lines []store.Audit
	if err := q.Order("id DESC").Limit(f.Limit + 1).Find(&lines).Error; err != nil {
		return nil, fmt.Errorf("read the audit: %w", err)
	}
	return lines, nil
}

// ActorNames returns the present names of members and keys in audit lines, by id. The
// audit holds no names of patients.
func (a *Access) ActorNames(ctx context.Context, lines []store.Audit) (map[string]string, error) {
	of := map[Kind][]string{}
	for _, line := range lines {
		kind := Kind(line.ActorKind)
		if kind == KindAccount {
			kind = KindOrganization // both are keys
		}
		of[kind] = append(of[kind], line.ActorID)
	}
	names := map[string]string{}
	var members []models.Member
	if err := a.store.Read(ctx).Select("id, first_name, last_name").Where("id IN ?", distinct(of[KindMember])).Find(&members).Error; err != nil {
		return nil, fmt.Errorf("read the names of members: %w", err)
	}
	for _, m := range members {
		names[m.ID] = strings.TrimSpace(m.FirstName + " " + m.LastName)
	}
	var keys []APIKey
	if err := a.store.Read(ctx).Select("id, name").Where("id IN ?", distinct(of[KindOrganization])).Find(&keys).Error; err != nil {
		return nil, fmt.Errorf("read the names of keys: %w", err)
	}
	for _, k := range keys {
		names[k.ID] = k.Name
	}
	return names, nil
}

func distinct(ids []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(ids)))
}
