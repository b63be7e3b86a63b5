#!/bin/bash
# Runs the tests of the lock-free code under ThreadSanitizer; exits non-zero if it finds a race.
#
#   tests/tsan.sh
#
# Needs the nightly compiler with the sources of the standard library, which is built with the sanitizer as well
# (rustup toolchain install nightly --component rust-src). Beside loom, which tries every interleaving of small models, this
# watches the real code with real threads.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc +nightly -vV | sed -n 's/^host: //p')
export RUSTFLAGS=-Zsanitizer=thread
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/tsan
check() { cargo +nightly test -Zbuild-std --target "$host" --no-fail-fast "$@"; }
# Seqlock, lock and files; then what shards and other threads hand to one another.
check -p comsipl-fdb --lib --test readers --test model
check -p comsipl-shards --lib -- bus:: mailbox:: sleep::
