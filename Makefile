# The commands, on a fresh Debian 12 with a Rust toolchain, as root or with sudo. They install what is missing.
#
#   make run    builds Tidegate and runs it with etc/tidegate.toml and data in ./data until Ctrl-C
#   make test   all tests; the last line is `N passed, N failed`
#   make soak   kills the gateway 500 times under clients with durable sessions, in place of the 50 times of `make test`;
#               KILLS=n says another number, SEED=n repeats an earlier run
#
# TIDEGATE_TARGET=folder says where build outputs are kept; it is outside the checkout so that all clones share it.

export TIDEGATE_TARGET ?= /var/tmp/tidegate-$(shell id -un)
export CARGO_TARGET_DIR ?= $(TIDEGATE_TARGET)/cargo

.PHONY: run test soak

run:
	@conformance/install build
	@PATH="$$PATH:$$HOME/.cargo/bin" RUSTFLAGS="-C link-arg=-fuse-ld=mold" cargo build --release --locked -p tidegate
	@exec "$(CARGO_TARGET_DIR)/release/tidegate"

test:
	@conformance/run

soak:
	@KILLS="$${KILLS:-500}" conformance/run build soak
