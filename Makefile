# What people do with this repository. `make help` lists it.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup build run demo test lint fmt

TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/faultline/tools
export PATH := $(TOOLS)/bin:$(PATH)

BUF := proto/node_modules/.bin/buf
SCENARIO := services/simulator/scenarios/largest-bank-fails.toml

help: ## Show this.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup: ## Install what this machine lacks, and say so. Everything else does this first; afterwards nothing needs the network.
	@deploy/setup/setup.sh "$(TOOLS)"
	@cargo fetch --locked --quiet

build: setup ## Build the program: target/debug/faultline.
	cargo build --workspace --locked --offline

run: build ## Run everything on this machine, with a simulated fleet, until Ctrl-C. SCENARIO=file plays another scenario.
	@target/debug/faultline up --simulate $(SCENARIO)

demo: build ## The same, once and without a terminal, from nothing: fails unless exactly the scenario's incidents open and close.
	@rm -rf target/demo
	@target/debug/faultline up --simulate $(SCENARIO) --check --data-dir target/demo

test: build ## Run every test. Kafka and ClickHouse are real.
	@target/debug/faultline parts
	cargo test --workspace --all-targets --locked --offline

lint: setup $(BUF) ## Check format, lints, dependency rules and the wire contract.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked --offline -- --deny warnings
	cargo deny --offline --locked check bans licenses sources
	cd proto && node_modules/.bin/buf lint && node_modules/.bin/buf format --diff --exit-code

fmt: setup $(BUF) ## Format everything.
	cargo fmt --all
	cd proto && node_modules/.bin/buf format --write

$(BUF): proto/package-lock.json | setup
	@echo "setup: installing buf, which lints the wire contract"
	@cd proto && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier
	@touch $@
