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
# What the services of our own cluster keep their data in: sqlite or postgres.
export DATABASE ?= sqlite

cluster := $(CURDIR)/e2e/cluster
tool = $$($(cluster)/path $(1))
# all packages at once, so that nothing is compiled twice with other features
most = --workspace --exclude tsujiban-e2e
lints := lint-rust lint-deps lint-proto lint-charts lint-circles
tests := test-unit test-plane test-e2e test-clean
plane = build/cargo test $(most) --test plane

.PHONY: help
help: ## print the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

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
	build/cargo build --workspace --bins

.PHONY: images
images: build ## build the images and load them into the cluster
	@e2e/images

.PHONY: deploy
deploy: images ## build, load and install into the running cluster: the inner loop
	@e2e/deploy

.PHONY: test
test: $(tests) ## every test

.PHONY: test-unit
test-unit: ## the tests that need no cluster
	@$(cluster)/install cluster build
	@$(cluster)/build versitygw etcd kube-apiserver kube-controller-manager kubectl helm tessera
	build/cargo test $(most)

.PHONY: test-plane
test-plane: ## the operator on a real apiserver without nodes: attacks, rights, losses, handovers, stalls; then crash points and the soak
	@$(cluster)/install cluster build
	@$(cluster)/build etcd kube-apiserver kube-controller-manager kubectl helm
	$(plane) -- --test-threads 2 --skip crashes:: --skip soak::
	$(plane) -- --test-threads 1 crashes:: soak::

.PHONY: soak
soak: ## histories of a group that are made up: N=10000 SEED=1 FROM=0, or one again: SEED=1 ONLY=17
	@$(cluster)/install cluster build
	@$(cluster)/build etcd kube-apiserver kube-controller-manager kubectl helm
	RUST_LOG=$${RUST_LOG:-off} SOAK_N=$(N) SOAK_FROM=$(FROM) SOAK_SEED=$(SEED) SOAK_ONLY=$(ONLY) $(plane) soak:: -- --nocapture

.PHONY: test-e2e
test-e2e: ## the tests on a real cluster
	@e2e/test

.PHONY: test-losses
test-losses: ## every loss, damage and clumsy hand on a real cluster; writes docs/losses.md. ROWS="short" or "NAME ..." some of them
	@e2e/losses "$(or $(ROWS),all)"

.PHONY: losses-random
losses-random: ## random combinations of losses under load: MINUTES=30 SEED=1
	@MINUTES=$(or $(MINUTES),30) SEED=$(or $(SEED),1) e2e/losses random

.PHONY: test-clean
test-clean: ## demo and down, twice in a row, leave nothing behind
	@e2e/clean

.PHONY: bench
bench: ## what is promised about speed and size, beside baselines; FIGURES="NAME ..." some of it
	@e2e/bench/run $(FIGURES)

.PHONY: upgrade-test
upgrade-test: ## from the version before to this one and back, under a running collection
	@e2e/upgrade

.PHONY: test-postgres
test-postgres: ## both services on PostgreSQL: roles, an upgrade under a running collection, tables of a newer release, tables that are too new
	@e2e/postgres

.PHONY: test-scratch
test-scratch: ## an imaginary service is added by the steps of CONTRIBUTING.md and removed
	@e2e/scratch/run

.PHONY: lint
lint: $(lints) ## every lint

.PHONY: lint-rust
lint-rust: ## formatting, clippy, drift of crds/ and of the chart's list of services
	@$(cluster)/install build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --test plane -- -D warnings # no part of "all": it has test = false
	build/cargo run --quiet --package tsujiban-api --bin crds -- --check crds
	build/cargo run --quiet --package tsujiban-proto --bin services -- --check charts/tsujiban

.PHONY: lint-deps
lint-deps: ## licences, bans and sources of dependencies
	@$(cluster)/install build lint
	$(call tool,cargo-deny) --log-level error check --hide-inclusion-graph licenses bans sources

.PHONY: lint-proto
lint-proto: ## the gRPC contracts
	@$(cluster)/install lint
	cd proto && $(call tool,buf) lint

.PHONY: lint-charts
lint-charts: ## the charts: helm lint, unit tests, schemas of Kubernetes 1.35 to 1.37, kube-score, drift of what is rendered, of READMEs and of the CRD chart
	@$(cluster)/install lint
	charts/sync-crds --check
	charts/lint/run

.PHONY: lint-circles
lint-circles: ## no files of a crate import each other in a circle
	@$(cluster)/install lint
	build/circles-test
	build/circles

.PHONY: generate
generate: ## write the generated files: crds/, the CRD chart, the charts' READMEs and what they render
	@$(cluster)/install build lint
	build/cargo run --quiet --package tsujiban-api --bin crds -- crds
	build/cargo run --quiet --package tsujiban-proto --bin services -- charts/tsujiban
	charts/sync-crds
	charts/lint/run docs --write
	charts/lint/run rendered --write

.PHONY: stages
stages: ## print the stages of lint and test, in the order in which .ci/run makes them
	@echo $(lints) $(tests)

.PHONY: clean
clean: down ## stop everything and remove what was built, but not the cache
	cargo clean
