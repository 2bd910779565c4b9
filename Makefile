# The whole developer interface; `make` alone prints it. Everything that has to be installed goes
# below .cache, except Debian packages, which only root gets.

CARGO_DENY := .cache/tools/cargo-deny-0.20.2/bin/cargo-deny
CARGO_MACHETE := .cache/tools/cargo-machete-0.9.2/bin/cargo-machete
CARGO_FUZZ := .cache/tools/cargo-fuzz-0.13.2/bin/cargo-fuzz
CARGO_MUTANTS := .cache/tools/cargo-mutants-27.1.0/bin/cargo-mutants

SIMULATION_SEEDS ?= 10000
FUZZ_SECONDS ?= 60
MUTANTS ?= --file coordinator/src/registry/lease.rs --file coordinator/src/proxy/retry.rs

.PHONY: help dashboard run test lint fmt package bench faults soak simulate fuzz mutants bless deny

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-11s%s\n", $$1, $$2 }' Makefile

dashboard: ## build the web page that the coordinator embeds (needs Node)
	dashboard/npm build

run: dashboard ## build and start `ollama-coordinator --dev`: this machine only, nothing kept
	cargo run --package ollama-coordinator -- --dev

test: ## everything: Rust, the dashboard, real clients, a real engine (installs what is missing, says what)
	tests/all

lint: ## check formatting, clippy, rustdoc and the dashboard, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked
	dashboard/npm lint

fmt: ## format the code
	cargo fmt --all
	dashboard/npm format

package: dashboard ## a Debian package of each binary, in target/package (needs dpkg-dev)
	cargo build --release --locked --package ollama-coordinator --package ollama-agent
	packaging/deb target/release

bench: ## the benchmarks (installs what the proxy is measured beside, says what)
	bench/peers.sh
	cargo build --release --package ollama-coordinator --package ollama-agent
	cargo run --release --package ollama-coordinator-bench

faults: ## the long fault runs with their figures: kill -9, power loss, networks, failing machines
	cargo build --workspace --bins
	OLLAMA_COORDINATOR_KILL_CYCLES=1000 POWER_LOSS_SEEDS=3000 OLLAMA_COORDINATOR_FLEET=1000 \
		OLLAMA_COORDINATOR_PAUSE=90 OLLAMA_COORDINATOR_KILLS=12 OLLAMA_COORDINATOR_KILL_EVERY=10 \
		OLLAMA_COORDINATOR_ABORTS=100000 OLLAMA_COORDINATOR_AGENT_KILLS=100 \
		OLLAMA_COORDINATOR_BAD_NETWORK=600 OLLAMA_COORDINATOR_SOAK=300 \
		cargo test --package ollama-coordinator --tests -- --nocapture crash power_loss fleet \
		killing accounts world links stops soak data_dir mounts clock

SOAK ?= 1800
soak: ## half an hour of load, kills and restarts: does anything grow? (SOAK=300 for five minutes)
	cargo build --workspace --bins
	OLLAMA_COORDINATOR_SOAK=$(SOAK) OLLAMA_COORDINATOR_CROWD=300 \
		cargo test --package ollama-coordinator --test it -- --nocapture soak::

simulate: ## simulated worlds around the real registry and session rules, 10,000 seeds
	SIMULATION_SEEDS=$(SIMULATION_SEEDS) cargo test --release --package ollama-coordinator \
		--test it_simulation -- --nocapture

fuzz: $(CARGO_FUZZ) ## look for inputs that break parsers, a minute each (needs a nightly compiler)
	for target in registry_file control_messages request_body names; do \
		mkdir -p fuzz/found/$$target && PATH=$(abspath $(dir $(CARGO_FUZZ))):$$PATH \
		cargo +nightly fuzz run --sanitizer none $$target fuzz/found/$$target \
			fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 || exit 1; \
	done

mutants: $(CARGO_MUTANTS) ## break the lease and retry rules in every small way: which tests notice
	PATH=$(abspath $(dir $(CARGO_MUTANTS))):$$PATH cargo mutants --output target $(MUTANTS)

bless: ## accept what has changed in snapshots and generated files
	INSTA_UPDATE=always OLLAMA_COORDINATOR_BLESS=1 cargo test --workspace
	dashboard/npm types

deny: $(CARGO_DENY) $(CARGO_MACHETE) ## check dependencies: licences, sources, advisories, unused ones
	cargo fetch --quiet --locked
	$(CARGO_DENY) --offline check bans licenses sources
	.ci/advisories $(CARGO_DENY)
	$(CARGO_MACHETE)

# From .cache/tools/NAME-VERSION/bin/NAME: its name, and how `cargo install` writes the version.
.cache/tools/%:
	@echo "Installing $(@F) into .cache/tools: this takes a few minutes, once"
	cargo install --quiet --locked --root $(abspath $(@D)/..) \
		$(subst $(@F)-,$(@F)@,$(notdir $(abspath $(@D)/..)))
