# Everything a person or a machine does with this repository. `make help` lists it.

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
IMAGES := $(TARGET)/images
LAB := $(TARGET)/release/selvedge-lab
export CARGO_TARGET_DIR := $(TARGET)

.PHONY: help setup build web page images demo demo-down smoke test bench fmt fmt-check clippy unit e2e crashes docs fuzz licences

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install the Debian packages that are missing (root)
	@scripts/setup

build: setup web ## Build the programs into the target directory's release/
	cargo build --release --locked -p selvedge -p selvedge-host -p selvedge-orchestrator -p testkit

web: setup ## Build the orchestrator's page into web/dist
	@scripts/web build

page: setup ## The page's own tests, in a browser
	@scripts/web test

images: setup ## Build the demo guest's OVA
	@images/demo-guest/build $(IMAGES)

demo: build images ## Show the main job in a lab that stays (root); make demo-down ends it
	@$(LAB) demo --image $(IMAGES)/demo-guest.ova --fleet examples/fleet

demo-down: ## Remove the demo's lab, to the last trace
	@$(LAB) down --name demo --check

smoke: build images ## Check every claim of the demo without a person (root)
	@$(LAB) smoke --image $(IMAGES)/demo-guest.ova --site examples/site --fleet examples/fleet

test: setup fmt-check clippy unit page docs licences ## Everything that must be right before a change is kept

fmt: ## Format the code
	cargo fmt --all

fmt-check:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets --locked -- -D warnings

# The end-to-end tests run the programs of this profile, and the demo guest.
unit: images web
	cargo build --locked -p selvedge -p selvedge-host -p selvedge-orchestrator -p testkit
	SELVEDGE_CRASHES=$(or $(SELVEDGE_CRASHES),12) SELVEDGE_DEMO_GUEST=$(IMAGES)/demo-guest.ova cargo test --workspace --locked

crashes: images web ## The long suite: kill -9 of the daemon at 100 random points of a change
	cargo build --locked -p selvedge -p selvedge-host -p selvedge-orchestrator -p testkit
	SELVEDGE_CRASHES=$(or $(SELVEDGE_CRASHES),100) SELVEDGE_DEMO_GUEST=$(IMAGES)/demo-guest.ova cargo test --locked -p testkit --test crashes -- --nocapture

e2e: images web ## The end-to-end tests alone
	cargo build --locked -p selvedge -p selvedge-host -p selvedge-orchestrator -p testkit
	SELVEDGE_DEMO_GUEST=$(IMAGES)/demo-guest.ova cargo test --locked -p testkit

docs: ## Build the documentation; the book too where mdbook is installed
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked --document-private-items
	@if command -v mdbook >/dev/null; then mdbook build docs; else echo 'docs: no mdbook here, the book is not built'; fi
	@scripts/check-links

fuzz: setup ## Feed garbage to every parser of foreign bytes, FUZZ_SECONDS (60) each
	@scripts/fuzz

licences: ## Check the licences of what we depend on, and known vulnerabilities where cargo-deny is installed
	@scripts/check-licences
	@scripts/check-advisories

bench: build images ## Measure, and print the figures beside their bounds
	cargo build --release --locked -p bench
	@$(TARGET)/release/bench --image $(IMAGES)/demo-guest.ova
