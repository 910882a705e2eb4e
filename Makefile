# The Log Analytics VM extension. `make` lists what there is.

SHELL   := /bin/sh
VERSION ?= 1.0.0
OUT     := build

# Releases are built with a toolchain that has the fix of CVE-2026-56857.
export GOTOOLCHAIN := go1.26.11
export CGO_ENABLED := 0

MODULE  := github.com/openloganalytics/agent
LDFLAGS := -s -w -buildid= -X $(MODULE)/internal/product.Version=$(VERSION)
GOBUILD := go build -trimpath -buildvcs=false -ldflags "$(LDFLAGS)"
LINT    := go tool -modfile=tools/go.mod golangci-lint
FUZZTIME ?= 10s
SOAK    ?= 1h
CRASHES ?= 10000000

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the binary for this machine: build/log-analytics-agent
	$(GOBUILD) -o $(OUT)/log-analytics-agent .

# The real syslog-ng, for the tests. It cannot be installed beside rsyslog, so its
# packages are unpacked.
SYSLOGNG := $(OUT)/syslog-ng
$(SYSLOGNG)/usr/sbin/syslog-ng:
	@mkdir -p $(SYSLOGNG).new
	cd $(SYSLOGNG).new && apt-get download -q syslog-ng-core libivykis0 libnet1 libjson-c5 libwrap0 libpcre3 >/dev/null && \
		for p in *.deb; do dpkg -x $$p . && rm $$p || exit 1; done
	@mv $(SYSLOGNG).new $(SYSLOGNG)

.PHONY: test
test: $(SYSLOGNG)/usr/sbin/syslog-ng ## run the tests
	go test ./...
	cd test/gosyslog && go test ./...

.PHONY: race
race: $(SYSLOGNG)/usr/sbin/syslog-ng ## run the tests with the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race ./...
	go test ./agent/upload -run Fleet

.PHONY: lint
lint: ## vet for every platform, run the linters (builds them the first time)
	go vet ./...
	GOARCH=arm64 go vet ./...
	GOOS=windows go vet ./...
	GOOS=windows GOARCH=arm64 go vet ./...
	$(LINT) run

.PHONY: fmt
fmt: ## format the code
	$(LINT) fmt

.PHONY: fuzz
fuzz: ## fuzz every parser for FUZZTIME (10s) each
	@set -e; go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do \
		for f in $$(grep -hos '^func Fuzz[A-Za-z0-9]*' "$$dir"/*_test.go | sed 's/^func //'); do \
			echo "== $$pkg $$f"; go test "$$pkg" -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME); \
		done; \
	done
	cd test/gosyslog && go test -run '^$$' -fuzz . -fuzztime $(FUZZTIME)

.PHONY: bench
bench: build ## measure the agent beside others: table with target, measured, verdict
	go run ./test/bench $(BENCHFLAGS)
	cd test/gosyslog && go test -run '^$$' -bench . -benchmem

.PHONY: bench-docs
bench-docs: build ## the same, and update docs/performance.md
	go run ./test/bench -docs docs/performance.md $(BENCHFLAGS)

.PHONY: microbench
microbench: ## run the Go benchmarks of the record path
	go test -run '^$$' -bench . -benchmem ./agent/...

.PHONY: cross
cross: ## build every platform into build/bin
	@mkdir -p $(OUT)/bin
	GOOS=linux   GOARCH=amd64 $(GOBUILD) -o $(OUT)/bin/log-analytics-agent-linux-amd64 .
	GOOS=linux   GOARCH=arm64 $(GOBUILD) -o $(OUT)/bin/log-analytics-agent-linux-arm64 .
	GOOS=windows GOARCH=amd64 $(GOBUILD) -o $(OUT)/bin/log-analytics-agent-windows-amd64.exe .
	GOOS=windows GOARCH=arm64 $(GOBUILD) -o $(OUT)/bin/log-analytics-agent-windows-arm64.exe .

.PHONY: package
package: cross ## build the extension packages: make package VERSION=1.2.3
	go run ./manifest/pack -version $(VERSION) -os linux -bin $(OUT)/bin -out $(OUT)
	go run ./manifest/pack -version $(VERSION) -os windows -bin $(OUT)/bin -out $(OUT)

.PHONY: demo
demo: ## run the real package through a whole life on the embedded emulator
	@$(MAKE) --no-print-directory -s package
	@go run ./test/demo -package $(OUT)

.PHONY: crash
crash: build ## cut the power, kill, fill the disk, take memory from the real agent (root; strace, xfsprogs)
	go run -buildvcs=false ./test/crash -agent $(OUT)/log-analytics-agent $(CRASHFLAGS)

.PHONY: mutants
mutants: ## break what keeps data durable, one line at a time: the tests have to see it
	go run -buildvcs=false ./test/mutants

.PHONY: soak
soak: build ## crash states by the ten million, a fleet of a million, then power cuts and kills for SOAK (1h; root)
	go test -v ./agent/spool -run '^Test[SW][0-9]' -crashes $(CRASHES) -timeout 0
	go test ./agent/upload -run Fleet -agents 1000000 -timeout 0 -v
	go run -buildvcs=false ./test/crash -agent $(OUT)/log-analytics-agent -for $(SOAK)

.PHONY: e2e-guest
e2e-guest: ## let the real Azure guest agent drive the package (root; GUEST_HARNESS names the harness)
	go run ./test/e2e/guest

.PHONY: e2e-journald
e2e-journald: ## hold the journal's source against the real journald (root)
	go run ./test/e2e/journald

.PHONY: e2e-sources
e2e-sources: package ## every data source from its real daemon to the workspace, a table (root; the daemons)
	go run -buildvcs=false ./test/e2e/sources -package $(OUT)

.PHONY: check
check: ## everything that CI runs
	.ci/run

.PHONY: clean
clean: ## remove what was built
	rm -rf $(OUT)
