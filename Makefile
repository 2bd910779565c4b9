# The whole developer interface; `make` alone prints it. Everything that has to be installed goes
# below .cache, except Debian packages, which only root gets.

TOOLS := .cache/tools/bin
CARGO_DENY_VERSION := 0.20.2
CARGO_MACHETE_VERSION := 0.9.2

.PHONY: help run test lint fmt bench faults bless deny

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s%s\n", $$1, $$2 }' Makefile

run: ## build and start `ollama-coordinator --dev`: this machine only, nothing kept
	cargo run --package ollama-coordinator -- --dev

test: ## everything: Rust, real clients, a real engine (installs what is missing, says what)
	tests/all

lint: ## check formatting, clippy and rustdoc, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked

fmt: ## format the Rust code
	cargo fmt --all

bench: ## the benchmarks
	cargo bench --workspace

faults: ## the long fault runs with their figures: 1,000 times kill -9, power losses
	OLLAMA_COORDINATOR_KILL_CYCLES=1000 POWER_LOSS_SEEDS=3000 OLLAMA_COORDINATOR_FLEET=1000 \
		OLLAMA_COORDINATOR_PAUSE=90 \
		cargo test --package ollama-coordinator --tests -- --nocapture persistence power_loss fleet

bless: ## accept what has changed in snapshots and generated files
	INSTA_UPDATE=always OLLAMA_COORDINATOR_BLESS=1 cargo test --workspace

deny: $(TOOLS)/cargo-deny $(TOOLS)/cargo-machete ## check dependencies: licences, sources, advisories, unused ones
	$(TOOLS)/cargo-deny --offline check bans licenses sources
	.ci/advisories $(TOOLS)/cargo-deny
	$(TOOLS)/cargo-machete

$(TOOLS)/cargo-deny: Makefile
	@echo "Installing cargo-deny into .cache/tools: this takes a few minutes, once"
	cargo install --quiet --locked --force --root .cache/tools cargo-deny --version $(CARGO_DENY_VERSION)
	@touch $@

$(TOOLS)/cargo-machete: Makefile
	@echo "Installing cargo-machete into .cache/tools: this takes a few minutes, once"
	cargo install --quiet --locked --force --root .cache/tools cargo-machete --version $(CARGO_MACHETE_VERSION)
	@touch $@
