# What people do with this repository. `make help` lists it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup setup-tests build run demo test fuzz model sweep chaos bench bench-verdicts bench-detect bench-rca pages lint fmt

TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/faultline/tools
export PATH := $(TOOLS)/bin:$(PATH)

BUF := proto/node_modules/.bin/buf
PAGE := dashboards/console
PAGE_SOURCES := $(PAGE)/package.json $(PAGE)/vite.config.ts $(PAGE)/tsconfig.json $(PAGE)/index.html $(shell find $(PAGE)/src $(PAGE)/public -type f 2>/dev/null)
SCENARIO := services/simulator/scenarios/largest-bank-fails.toml

help: ## Show this.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup: ## Install what this machine lacks, and say so. Everything else does this first; afterwards nothing needs the network.
	@deploy/setup/setup.sh "$(TOOLS)"
	@cargo fetch --locked --quiet

setup-tests: setup ## The same for what only tests need: a browser, Prometheus, Alertmanager, numpy and scipy.
	@deploy/setup/setup.sh "$(TOOLS)" --tests

build: setup $(PAGE)/dist/index.html ## Build the page, and the program that has it in it: target/debug/faultline.
	cargo build --workspace --locked --offline

run: build ## Run everything on this machine, with a simulated fleet, until Ctrl-C. SCENARIO=file plays another scenario.
	@target/debug/faultline up --simulate $(SCENARIO)

demo: build ## The same, once and without a terminal, from nothing: fails unless exactly the scenario's incidents open and close.
	@rm -rf target/demo
	@target/debug/faultline up --simulate $(SCENARIO) --check --data-dir target/demo

test: build setup-tests ## Run every test. Kafka and ClickHouse are real.
	@target/debug/faultline parts
	cargo test --workspace --all-targets --locked --offline

fuzz: setup ## Try every decoder with inputs that `make test` does not try: 60 s each, or TIME=10m. TARGET=name tries the tests that have this in their names.
	FAULTLINE_FUZZ_TIME=$(or $(TIME),60s) cargo test --workspace --lib --locked --offline -- --nocapture $(or $(TARGET),fuzz::)

model: setup ## Check the model of how a batch gets into ClickHouse once, further than `make test` does: some minutes.
	cargo run --package faultline-model --locked --offline

sweep: build ## Kill ClickHouse before each file operation that an insert makes, one after the other, and look what is left. Up to 20 minutes.
	@target/debug/faultline parts
	cargo test -p faultline-tests --test e2e --locked --offline -- --ignored --nocapture sweep::

chaos: build ## Kill, stop and cut off every part, fill the disks, and count: a million events, up to 20 minutes. SEED=n repeats a schedule.
	@target/debug/faultline parts
	FAULTLINE_CHAOS_SEED=$(SEED) cargo test -p faultline-tests --test e2e --locked --offline -- --ignored --nocapture chaos::

bench: setup $(PAGE)/dist/index.html ## Measure what Faultline costs and how fast it is: a table, and target/bench/*.json. BENCH=name measures one.
	cargo build --release --locked --offline -p faultline -p faultline-bench -p faultline-sdk --bins --examples
	@target/release/faultline parts
	@target/release/faultline-bench $(BENCH)

bench-verdicts: setup $(PAGE)/dist/index.html ## Measure whether verdicts are right, on labelled scenarios, and how fast they are. ARGUMENTS='--seeds 7,8' or '--scenarios DIR' or '--data DIR' takes others.
	cargo build --release --locked --offline -p faultline -p faultline-bench
	@target/release/faultline-bench verdicts attribution settling $(ARGUMENTS)

bench-rca: setup ## Measure whether the localiser names what moved, on the sets in ../shared/rca and on made ones. RCA=DIRECTORY takes other sets.
	cargo build --release --locked --offline -p faultline-bench
	@target/release/faultline-bench rca $(if $(RCA),--rca $(RCA))

bench-detect: setup-tests ## Measure how well faults are found, on streams of a yardstick that is beside this repository. ARGUMENTS='--seeds 1,2 --scenarios NAME --quiet-days 8 --shared DIR'
	cargo build --release --locked --offline -p faultline-bench
	@target/release/faultline-bench detect $(ARGUMENTS)

pages: setup ## Write docs/codes.md, docs/reasons.md, docs/evidence.md and the rules' test vectors anew, from crates/verdict/rules.
	FAULTLINE_WRITE_PAGES=1 cargo test --package faultline-verdict --test tables --locked --offline -- --test-threads=1

lint: setup $(BUF) $(PAGE)/node_modules/.package-lock.json ## Check format, lints, dependency rules and the wire contract.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked --offline -- --deny warnings
	cargo deny --offline --locked check bans licenses sources
	cd proto && node_modules/.bin/buf lint && node_modules/.bin/buf format --diff --exit-code
	cd $(PAGE) && npm run --silent check

fmt: setup $(BUF) ## Format everything.
	cargo fmt --all
	cd proto && node_modules/.bin/buf format --write

NPM_CI := npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier

$(BUF): proto/package-lock.json | setup
	@echo "setup: installing buf, which lints the wire contract"
	@cd proto && $(NPM_CI)
	@touch $@

$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package-lock.json | setup
	@echo "setup: installing what the console's page is built and tested with"
	@cd $(PAGE) && $(NPM_CI)
	@touch $@

$(PAGE)/dist/index.html: $(PAGE)/node_modules/.package-lock.json $(PAGE_SOURCES)
	cd $(PAGE) && npm run --silent build
