# Two commands on a fresh Debian machine with Rust: `make run` and `make test`.

.PHONY: help run build test check bench needs-build needs-test

help:
	@echo "make run    install what the build needs, build, serve on 127.0.0.1:8080 over ./countersign-data"
	@echo "make test   install what the tests need, run them all with the real programs"
	@echo "make bench  measure, against the tools of today and the bounds of this machine"
	@echo "make check  formatting and lints only"

needs-build:
	@scripts/install-needs build

needs-test:
	@scripts/install-needs test

build: needs-build
	cargo build --release --locked

run: build
	target/release/countersign serve

check: needs-build
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

test: needs-test check
	cargo test --locked

bench: needs-test
	cargo bench --locked --bench resign
