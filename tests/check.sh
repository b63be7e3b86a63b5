#!/bin/bash
# The test command of ComSIPL: everything that must hold, on a fresh Debian 12 with cargo.
#
# Installs the SIP clients that the tests drive, valgrind, xmllint and node (only if they are missing; with sudo if it has
# to) and the libraries of the web phones, then checks the format, the lints, the licences, the lock-free code, how many
# instructions the engine takes for each operation, and runs all tests. Goes on after a failure, ends with a summary and
# exits non-zero if anything failed.
#
#   tests/check.sh                 everything
#   COMSIPL_NO_INSTALL=1 …         install nothing; a missing client fails its tests
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

# A test whose client is not installed fails instead of passing as skipped.
export COMSIPL_REQUIRE_CLIENTS=1
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed_steps=()

# step "heading" command…: runs it, keeps its output for the sums, remembers a failure.
step() {
  local heading=$1
  shift
  printf '\n=== %s ===\n' "$heading"
  if ! "$@" 2>&1 | tee -a "$log"; then
    failed_steps+=("$heading")
  fi
}

# file-or-program package…: what proves that a package is there, and the Debian packages that bring it.
needs=(
  "/usr/bin/cc gcc libc6-dev"
  "/usr/bin/linphonec linphone-cli"
  "/usr/include/linphone/core.h liblinphone-dev"
  "/usr/bin/baresip baresip-core"
  "/usr/bin/sipp sip-tester"
  "/usr/bin/valgrind valgrind"
  "/usr/bin/xmllint libxml2-utils"
  "/usr/bin/node nodejs"
  "/usr/bin/npm npm"
)

install_programs() {
  local need packages=()
  for need in "${needs[@]}"; do
    [ -e "${need%% *}" ] || read -ra packages <<<"${packages[*]-} ${need#* }"
  done
  [ ${#packages[@]} -eq 0 ] && { echo "all there"; return 0; }
  [ "${COMSIPL_NO_INSTALL:-0}" = 1 ] && { echo "missing: ${packages[*]}"; return 0; }
  local sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -q &&
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends "${packages[@]}"
}

# The libraries of the web phones, exactly those of the lock file; npm compares what it gets with the sums there.
install_web_phones() {
  [ "${COMSIPL_NO_INSTALL:-0}" = 1 ] && { echo "nothing is installed"; return 0; }
  npm ci --prefix tests/real/web --no-audit --no-fund
}

check_licences() {
  if ! cargo deny --version >/dev/null 2>&1; then
    echo "cargo-deny is not installed: tests/licences.rs looks at licences and sources, and nobody at advisories"
  else
    cargo deny --offline check licenses
  fi
}

step "SIP clients, valgrind, xmllint and node" install_programs
step "Web phones" install_web_phones
step "Format" cargo fmt --all --check
step "Lints" cargo clippy --workspace --all-targets --locked -- -D warnings
step "Licences" check_licences
step "Lock-free code, every interleaving (loom)" \
  cargo test --locked --release -p comsipl-fdb --features loom --lib loom
step "Instructions for each operation" \
  cargo run --release --locked -p comsipl-benches --bin instructions -- --check
# Built here, because the tests that drive it would build it in the time that they are given, or wait for a lock of cargo's.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
step "Server" cargo build --locked -p comsipl-shards --bin comsipl
export COMSIPL_BIN=${COMSIPL_BIN:-$target/debug/comsipl}
step "Tests" cargo test --workspace --locked --no-fail-fast

printf '\n=== Summary ===\n'
for heading in "${failed_steps[@]}"; do
  echo "failed step: $heading"
done
# cargo says for each test program: test result: ok. 12 passed; 0 failed; …
awk '/^test result: / {
       for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) passed += $(i - 1); if ($i ~ /^failed/) failed += $(i - 1) }
     }
     END { printf "%d passed, %d failed\n", passed, failed }' "$log"
[ ${#failed_steps[@]} -eq 0 ]
