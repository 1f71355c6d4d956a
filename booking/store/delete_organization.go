package store

import (
	"fmt"
	"slices"
)

// leavings note the contents of an organization's files for removal from their bucket,
// and delete its rows that no foreign key leads to, and its jobs; each statement takes its
// id. A job under way is left to end: it finds
// nothing to do any more, and River stops a process whose job another transaction
// deleted while it was being ended.
var leavings = []string{
	"INSERT INTO file_removals (key, requested_at) SELECT organization_id || '/' || id, CURRENT_TIMESTAMP FROM files WHERE organization_id = ? ON CONFLICT (key) DO NOTHING",
	"DELETE FROM quotes WHERE booking_id IN (SELECT id FROM bookings WHERE organization_id = ?)",
	"DELETE FROM position_states WHERE booking_id IN (SELECT id FROM bookings WHERE organization_id = ?)",
	"DELETE FROM river_job WHERE state <> 'running' AND args->>'organizationId' = ?",
	"DELETE FROM river_job WHERE state <> 'running' AND kind = 'announce' AND CAST(args->>'eventId' AS bigint) IN (SELECT id FROM events WHERE organization_id = ?)",
	"DELETE FROM river_job WHERE state <> 'running' AND kind = 'webhook' AND args->>'deliveryId' IN (SELECT id FROM webhook_deliveries WHERE organization_id = ?)",
}

// organizationTables are the tables that name the organization of each row,
// those that refer to others before these.
var organizationTables = []string{
	"idempotency_keys", "sessions", "one_time_codes", "code_guesses", "code_budgets", "organization_origins", "api_keys", "displays",
	"message_attempts", "message_reminders", "message_wordings", "whatsapp_templates", "webhook_deliveries", "webhooks",
	"push_log", "position_marks", "devices", "events", "files", "bookings", "ticket_counters",
	"member_views", "custom_fields", "websites", "calendars", "calendar_feeds", "resource_types", "resources", "booking_types", "customers", "members",
}

// DropOrganization deletes an organization and everything of it, its audit too.
func (tx *Tx) DropOrganization(id string) error {
	statements := slices.Clone(leavings)
	for _, table := range organizationTables {
		statements = append(statements, "DELETE FROM "+table+" WHERE organization_id = ?")
	}
	statements = append(statements, "DELETE FROM organizations WHERE id = ?")
	for _, sql := range statements {
		if err := tx.Exec(sql, id).Error; err != nil {
			return fmt.Errorf("delete an organization: %w", err)
		}
	}
	// The audit can only be deleted once the organization is gone.
	return tx.dropAudit(id)
}
