package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nowserving/booking/catalog"
	"nowserving/booking/store"
	"nowserving/cmd/nowserving/node"
	"nowserving/models"
)

// account is the name of the account's audit, which has no organization.
const account = "account"

var errAuditDamaged = errors.New("the audit is damaged")

func auditCommands() *cobra.Command {
	var organization, heads string
	verify := command("verify", "Check that no line of the audit was changed, deleted or added outside the service", func(ctx context.Context, c node.Config) error {
		kept, err := readHeads(heads)
		if err != nil {
			return err
		}
		return withStore(ctx, c, func(s *store.Store) error { return auditVerify(ctx, os.Stdout, s, organization, kept) })
	})
	verify.Flags().StringVar(&organization, "organization", "", `the id or short name of one organization, or "account"; empty: all`)
	verify.Flags().StringVar(&heads, "heads", "", "a file that `audit heads` wrote earlier: its lines must still be there")
	cmd := &cobra.Command{Use: "audit", Short: "Verify the audit"}
	cmd.AddCommand(verify, command("heads", "Print the last line's number and hash of each chain, to keep outside the database", auditHeads))
	return cmd
}

// auditHeads prints one chain a line: organization, number, hash.
func auditHeads(ctx context.Context, c node.Config) error {
	return withStore(ctx, c, func(s *store.Store) error {
		chains, err := s.AuditChains(ctx)
		if err != nil {
			return err
		}
		return printHeads(os.Stdout, chains)
	})
}

func printHeads(out io.Writer, chains []store.AuditChain) error {
	for _, chain := range chains {
		if chain.Lines <= chain.Removed {
			continue
		}
		if _, err := fmt.Fprintf(out, "%s %d %x\n", organizationName(chain.OrganizationID), chain.Lines, chain.Hash); err != nil {
			return err
		}
	}
	return nil
}

func readHeads(path string) (map[string]store.AuditHead, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it was only read
	kept := map[string]store.AuditHead{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		var organization, hash string
		var head store.AuditHead
		_, err := fmt.Sscanf(lines.Text(), "%s %d %s", &organization, &head.Seq, &hash)
		if err == nil {
			head.Hash, err = hex.DecodeString(hash)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not a line of `audit heads`: %w", path, lines.Text(), err)
		}
		kept[organization] = head
	}
	return kept, lines.Err()
}

// auditVerify checks the chains of one organization or of all, and of every
// organization in kept.
func auditVerify(ctx context.Context, out io.Writer, s *store.Store, only string, kept map[string]store.AuditHead) error {
	if name := strings.ToLower(only); only != account && catalog.IsShortName(name) {
		id, err := catalog.New(s).IDOf(ctx, name)
		if err == nil {
			only = id
		} else if models.CodeOf(err) != models.CodeOrgMissing { // a deleted one may still have an audit
			return err
		}
	}
	ids, err := s.AuditedOrganizations(ctx)
	if err != nil {
		return err
	}
	checked := map[string]bool{}
	for _, id := range ids {
		checked[organizationName(id)] = only == "" || organizationName(id) == only
	}
	for name := range kept {
		if _, known := checked[name]; !known && (only == "" || only == name) {
			checked[name] = true
			ids = append(ids, organizationID(name))
		}
	}
	if _, known := checked[only]; only != "" && !known {
		return fmt.Errorf("there is no audit of an organization %q", only)
	}
	damaged := 0
	for _, id := range ids {
		name := organizationName(id)
		if !checked[name] {
			continue
		}
		var head *store.AuditHead
		if known, ok := kept[name]; ok {
			head = &known
		}
		report, err := s.VerifyAudit(ctx, id, head)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, reportText(name, &report)); err != nil {
			return err
		}
		if len(report.Faults) > 0 {
			damaged++
		}
	}
	if damaged > 0 {
		return fmt.Errorf("%w: %d of %d chains", errAuditDamaged, damaged, len(ids))
	}
	return nil
}

// reportText has a line about a chain, and one for each fault.
func reportText(name string, r *store.AuditReport) string {
	state := "ok"
	if len(r.Faults) > 0 {
		state = "DAMAGED"
	}
	text := fmt.Sprintf("%-8s %s: %d lines", state, name, r.Lines-r.Removed)
	if r.Unchained > 0 {
		text += fmt.Sprintf(", %d older than the chain (counted, not verified)", r.Unchained)
	}
	if r.Removed > 0 {
		text += fmt.Sprintf(", %d deleted with the organization", r.Removed)
	}
	if r.Lines > 0 {
		text += fmt.Sprintf(", head %x", r.Hash)
	}
	for _, fault := range r.Faults {
		text += "\n         " + fault
	}
	return text
}

func organizationName(id string) string {
	if id == "" {
		return account
	}
	return id
}

func organizationID(name string) string {
	if name == account {
		return ""
	}
	return name
}
