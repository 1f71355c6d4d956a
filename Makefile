# What a developer types. The work is done by the scripts in .ci, which CI runs too.

# Narrow a run:  make test PKG=./booking/... GOTESTFLAGS='-run Join -v'
PKG ?= ./...
GOTESTFLAGS ?=
export PKG GOTESTFLAGS

.PHONY: help test fuzz lint licences vulnerabilities documents build bench demo

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

test: ## run every test with the race detector, on PostgreSQL and SQLite (installs what lacks)
	@.ci/test

fuzz: ## send anything to the HTTP API and the live protocol, half a minute each (FUZZTIME)
	@.ci/fuzz

lint: ## check style and the arrows between the packages
	@.ci/lint

licences: ## list the licence of every module; fail on one that is unknown or not allowed
	@.ci/licences/check

vulnerabilities: ## look for known vulnerabilities in what is called (needs https://vuln.go.dev)
	@.ci/vulnerabilities

documents: ## have Redocly and Spectral read the documents of the API; fail on errors (needs npm's registry)
	@.ci/documents/check

# The tags leave out what the service does not use of gin and gRPC: nearly half of the binary.
build: ## build bin/nowserving and bin/loadtest, static
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -tags nomsgpack,disable_grpc_modules,grpcnotrace -o bin/ ./cmd/...

bench: ## run every benchmark, beside the same PostgreSQL as the tests
	@.ci/test go test -run '^$$' -bench . $$GOTESTFLAGS $$PKG

demo: ## serve a seeded clinic with a simulated day and print its addresses
	go run ./cmd/nowserving demo
