#!/bin/bash
# Runs the fuzz targets one after the other and ends with a table; exits non-zero if anything was found.
#
#   tests/fuzz/run.sh [MINUTES [TARGET…]]     30 minutes each, all targets
#
# Needs the nightly compiler and cargo-fuzz (cargo install cargo-fuzz). What is found lies in tests/fuzz/artifacts/TARGET; when
# it is mended it belongs into tests/fuzz/corpus/TARGET, which tests/corpora.rs runs through again on the stable compiler.
# New inputs are kept in tests/fuzz/target/corpus and are never committed as they are; to take over what reaches more:
#   cargo +nightly fuzz cmin -s none TARGET
set -uo pipefail
cd "$(dirname "$0")" || exit 1
minutes=${1:-30}
[ $# -eq 0 ] || shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cd fuzz_targets && ls | sed 's/\.rs$//')

# No sanitizer: the code under test is free of unsafe but for the mappings of fdb, in which it would see nothing.
cargo +nightly fuzz build --fuzz-dir . -s none || exit 1
built=$(cargo +nightly metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
programs=$built/$(rustc +nightly -vV | sed -n 's/^host: //p')/release

table=""
found=0
for target in "${targets[@]}"; do
  new=target/corpus/$target log=target/$target.log
  mkdir -p "$new" "artifacts/$target"
  options=(-max_total_time=$((minutes * 60)) -timeout=20 -rss_limit_mb=2000 -print_final_stats=1)
  options+=("-artifact_prefix=artifacts/$target/")
  case $target in
    pidf | documents) options+=(-dict=xml.dict -max_len=4096) ;;
    fdb_open) options+=(-max_len=200) ;;
    websocket) options+=(-max_len=4096) ;;
    engine) options+=(-dict=sip.dict -max_len=8192) ;;
    *) options+=(-dict=sip.dict -max_len=4096) ;;
  esac
  echo "=== $target, $minutes minutes"
  result=held
  "$programs/$target" "$new" "corpus/$target" "${options[@]}" >"$log" 2>&1 || { result=FOUND found=1; tail -5 "$log"; }
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  reached=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | tr -dc 0-9)
  table+=$(printf '%-14s %14s %10s   %s' "$target" "${runs:-?}" "${reached:-?}" "$result")$'\n'
done
printf '\n%-14s %14s %10s   %s\n%s' target runs edges result "$table"
exit $found
