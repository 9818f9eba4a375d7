# Two commands on a fresh Debian machine with Rust: `make run` and `make test`.

.PHONY: help run build test check bench soak fuzz needs-build needs-test needs-bench

help:
	@echo "make run    install what the build needs, build, serve on 127.0.0.1:8080 over ./countersign-data"
	@echo "make test   install what the tests need, run them all with the real programs"
	@echo "make bench  measure, against the tools of today and the bounds of this machine"
	@echo "make soak   half an hour (SOAK_SECONDS) of mixed load; every answer checked, no growth allowed"
	@echo "make check  formatting and lints only"
	@echo "make fuzz   let libFuzzer think, FUZZ_SECONDS (60) for each parser"

needs-build:
	@scripts/install-needs build

needs-test:
	@scripts/install-needs test

needs-bench:
	@scripts/install-needs bench

build: needs-build
	cargo build --release --locked

run: build
	target/release/countersign serve

check: needs-build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check bans licenses sources; fi

test: needs-test check
	cargo test --locked

bench: needs-bench
	cargo bench --locked --bench resign -- $(BENCH)
	cargo bench --locked --bench serve -- $(BENCH_SERVE)

# A wrong answer, or memory or descriptors that grow, end it with an error.
soak: needs-test
	cargo bench --locked --bench soak

FUZZ_SECONDS ?= 60

# Without a sanitizer: the crate forbids unsafe code, so panics and broken promises are what there is to find.
fuzz: needs-build
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
	@set -e; cd fuzz; export RUSTC_BOOTSTRAP=1; cargo fuzz build --sanitizer none; for target in $$(cargo fuzz list); do \
		echo "== $$target"; mkdir -p corpus-found/$$target; \
		cargo fuzz run --sanitizer none $$target corpus-found/$$target corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; \
	done
