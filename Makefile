# make        prints the targets
# Everything that a target needs, it installs. Binaries of the test cluster are kept in $(TSUJIBAN_CACHE), by default ~/.cache/tsujiban.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO_BUILD_TARGET ?= x86_64-unknown-linux-musl
export CARGO_INCREMENTAL ?= 0
# CLUSTER=own: a Kubernetes that we start. CLUSTER=external: the one of the current KUBECONFIG.
export CLUSTER ?= own
# Where images go with CLUSTER=external: own, kind, k3d or push:REGISTRY.
export IMAGES ?= own

cluster := $(CURDIR)/e2e/cluster
tool = $$($(cluster)/path $(1))

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## from nothing to groups whose routers are backed up; the cluster stays up
	@e2e/demo

.PHONY: down
down: ## remove everything that demo and test started, also after a crash
	@e2e/down

.PHONY: install
install: ## install what building, testing and linting need
	@$(cluster)/install cluster build lint

.PHONY: build
build: ## build the binaries (static musl)
	@$(cluster)/install build
	cargo build --workspace --bins

.PHONY: images
images: build ## build the images and load them into the cluster
	@e2e/images

.PHONY: deploy
deploy: images ## build, load and install into the running cluster: the inner loop
	@e2e/deploy

.PHONY: test
test: test-unit test-e2e test-clean ## every test

.PHONY: test-unit
test-unit: ## the tests that need no cluster
	@$(cluster)/install cluster build
	@$(cluster)/build versitygw
	cargo test --workspace --exclude tsujiban-e2e

.PHONY: test-e2e
test-e2e: ## the tests on a real cluster
	@e2e/test

.PHONY: test-clean
test-clean: ## demo and down, twice in a row, leave nothing behind
	@e2e/clean

.PHONY: bench
bench: ## what is promised about speed and size, beside baselines; FIGURES="NAME ..." some of it
	@e2e/bench/run $(FIGURES)

.PHONY: upgrade-test
upgrade-test: ## from the version before to this one and back, under a running collection
	@e2e/upgrade

.PHONY: lint
lint: ## formatting, clippy, licences and bans, contracts, charts, drift of generated files
	@$(cluster)/install build lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	$(call tool,cargo-deny) --log-level error check --hide-inclusion-graph licenses bans sources
	cd proto && $(call tool,buf) lint
	cargo run --quiet --package tsujiban-api --bin crds -- --check crds
	charts/sync-crds --check
	$(call tool,helm) lint --strict charts/tsujiban-crds
	$(call tool,helm) lint --strict charts/tsujiban --values charts/tsujiban/values-trial.yaml
	$(call tool,helm) lint --strict charts/tsujiban --values charts/tsujiban/values-production.yaml

.PHONY: generate
generate: ## write the generated files: crds/ and the CRD chart
	cargo run --quiet --package tsujiban-api --bin crds -- crds
	charts/sync-crds

.PHONY: clean
clean: down ## stop everything and remove what was built, but not the cache
	cargo clean
