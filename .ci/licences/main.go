// Command licences lists the licence of every module whose code is built into
// the programs or their tests, and fails on one that is unknown or not allowed.
// Run it in the root of the repository.
package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are licences that let the service be used and shipped under its own.
// MPL-2.0 asks that changes to its files are published; we make none.
var allowed = []string{
	"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-NoNuclearLicense", "CC0-1.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "PostgreSQL", "Unlicense", "Zlib",
}

// read are files that are not recognized and that a person has read: what they
// are.
var read = map[string]string{
	"modernc.org/libc LICENSE-3RD-PARTY.md": "MIT of musl and others",
	"modernc.org/memory LICENSE-LOGO":       "CC-BY-3.0 of a picture",
	"modernc.org/sqlite LICENSE-SQLITE":     "public domain",
}

// minCoverage is how much of a file, in percent, has to be text of licences.
const minCoverage = 60

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run() error {
	list := exec.Command("go", "list", "-deps", "-test", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}{{end}}", "./...")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("list the modules: %w", err)
	}
	modules := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(modules)
	known := slices.Collect(maps.Values(read))
	refused := 0
	for _, module := range slices.Compact(modules) {
		parts := strings.Split(module, "\t")
		if len(parts) != 3 || parts[2] == "" {
			return fmt.Errorf("no code of the module %q", module)
		}
		found, err := licences(parts[0], parts[2])
		if err != nil {
			return err
		}
		mark := ""
		if len(found) == 0 || slices.ContainsFunc(found, func(id string) bool { return !slices.Contains(allowed, id) && !slices.Contains(known, id) }) {
			refused++
			mark = "  NOT ALLOWED"
		}
		fmt.Printf("%-60s %-40s %s%s\n", parts[0], parts[1], strings.Join(found, ", "), mark)
	}
	if refused > 0 {
		return fmt.Errorf("%d modules have no known and allowed licence", refused)
	}
	return nil
}

// licences are the SPDX names of the licences in the root of a module; a file
// that is not recognized adds "unknown".
func licences(module, dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, entry := range entries {
		name := strings.ToUpper(entry.Name())
		if entry.IsDir() || !strings.HasPrefix(name, "LICENSE") && !strings.HasPrefix(name, "LICENCE") && !strings.HasPrefix(name, "COPYING") &&
			!strings.HasPrefix(name, "UNLICENSE") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		if known, ok := read[module+" "+entry.Name()]; ok {
			ids = append(ids, known)
			continue
		}
		scan := licensecheck.Scan(text)
		if scan.Percent < minCoverage {
			ids = append(ids, "unknown ("+entry.Name()+")")
		}
		for _, match := range scan.Match {
			ids = append(ids, match.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
