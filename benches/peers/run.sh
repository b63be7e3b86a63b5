#!/bin/bash
# Kamailio and ComSIPL side by side: the same load generator, the same cores, in turns; writes benches/REPORT.md,
# REPORT.html and plots/.
#
#   benches/peers/run.sh              three rounds, some 20 minutes (after the build)
#     --rounds N                      so many rounds
#     --only REGEX                    only the questions whose names match (see `# ---- the questions`)
#     --resume                        go on where a run ended or broke off; keeps what is there
#     --into DIR                      write the report there instead of benches/
#     --quick                         one short round, to see that everything works; prints the report, leaves nothing
#
# For Debian 12; installs what is missing by apt (asks for sudo if need be). The servers run on one half of the
# processors, the load generator on the other. Each figure is written down at once, in target/peers.
set -euo pipefail
cd "$(dirname "$0")/../.."

# ---- how much

command="benches/peers/run.sh${*:+ $*}"
quick=no resume=no only=. rounds=3 into=benches
while (($#)); do
  case $1 in
  --quick) quick=yes rounds=1 ;;
  --resume) resume=yes ;;
  --rounds) rounds=$2 && shift ;;
  --only) only=$2 && shift ;;
  --into) into=$(realpath -m "$2") && shift ;;
  *)
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
  esac
  shift
done
# holding, watched: presentities, and watchers of each (and one more) whose state is weighed.
if [[ $quick == no ]]; then
  seconds=3 registering=100000 celebrity_watchers=30000 holding=50000 watched=20 durable_held=10000
  patience=60 holding_patience=240 celebrity_patience=130 databases=(durable relaxed)
  trial_seconds=2 precision=5 capacity_patience=300
else
  seconds=1 registering=10000 celebrity_watchers=2000 holding=2000 watched=10 durable_held=2000
  patience=15 holding_patience=30 celebrity_patience=15 databases=(durable)
  trial_seconds=0.5 precision=50 capacity_patience=60
fi
held=$((holding * watched)) limit_ms=10

# ---- where: the upper half of the processors for the servers, the lower for the load

processors=$(nproc)
if ((processors < 2)); then
  echo "two processors are needed, one for the server and one for the load" >&2
  exit 1
fi
share=$((processors / 2))
load_cpus=$(seq -s, 0 $((share - 1)))
server_cpus=$(seq -s, "$share" $((share * 2 - 1)))
# Each Kamailio process waits for locks at times, so two for a processor are faster than one; those that wait for a
# database are more.
kamailio_processes=$((share * 2)) kamailio_db_processes=$((share * 8))
# What an unprivileged program is granted (net.core.rmem_max): both servers get the same.
socket_buffer_kib=$(($(</proc/sys/net/core/rmem_max) / 1024))

# ---- tools

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }
missing=()
for package in kamailio kamailio-presence-modules kamailio-postgres-modules postgresql postgresql-client jq; do
  # Not dpkg -s alone: a removed package with its configuration left is known, too.
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "installing ${missing[*]}" >&2
  as_root apt-get update -q >&2
  # Without the services that the packages would start: the servers here are our own.
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -q --no-install-recommends "${missing[@]}" >&2
fi
postgres_bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
cargo build --release --quiet -p comsipl-shards -p comsipl-loadgen -p comsipl-benches --bins
bin=${CARGO_TARGET_DIR:-target}/release
results=${CARGO_TARGET_DIR:-target}/peers

# ---- processes: each is remembered, and ended by its id

work=$(mktemp -d /tmp/comsipl-peers.XXXXXX)
chmod 711 "$work" # PostgreSQL runs as a user of its own
server=

# Kills the server at once, with the processes that it made, then ends its database in order, if it has one (killed, it
# would leave shared memory behind).
stop() {
  local pid pids
  [[ $server ]] || return 0
  if [[ -s $work/server.pid ]]; then
    pid=$(<"$work/server.pid")
    pids=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL "$pid" $pids 2>/dev/null || true
  fi
  if [[ -s $work/postgres/postmaster.pid ]]; then
    pid=$(head -n 1 "$work/postgres/postmaster.pid")
    kill -INT "$pid" 2>/dev/null || true
    for _ in {1..200}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null || true
  fi
  rm -f "$work/server.pid"
  wait "$server" 2>/dev/null || true
  server=
}

if [[ $quick == yes ]]; then results=$work/results; fi
if [[ $resume == no ]]; then rm -rf "$results"; fi
mkdir -p "$results"
touch "$results/results.jsonl" "$results/loads" "$results/floor.jsonl"

finish() {
  stop
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# A port that nobody listens on.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    [[ -z $(ss -Hltun "sport = :$port") ]] && echo "$port" && return
  done
}

# ---- the servers

# PostgreSQL's own programs refuse to run as root.
as_postgres() {
  if ((EUID == 0)); then setpriv --reuid postgres --regid postgres --clear-groups "$@"; else "$@"; fi
}

# $1: synchronous_commit
postgres() {
  as_postgres "$postgres_bin/postgres" -D "$work/postgres" -p "$database_port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c shared_buffers=1GB -c max_connections=200 -c synchronous_commit="$1" \
    -c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=4GB -c checkpoint_timeout=15min -c jit=off \
    >>"$work/postgres.log" 2>&1 </dev/null
}

ask_database() { psql -qAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$database_port" -U postgres "$@"; }

await_database() {
  for _ in {1..200}; do
    ask_database -c 'select 1' postgres >/dev/null 2>&1 && return
    sleep 0.05
  done
  echo "PostgreSQL does not start:" >&2
  tail "$work/postgres.log" >&2
  return 1
}

# An empty database of Kamailio's, to be copied for each run.
make_database() {
  local table
  database_port=$(free_port)
  mkdir "$work/postgres"
  if ((EUID == 0)); then chown postgres: "$work/postgres"; fi
  as_postgres "$postgres_bin/initdb" -D "$work/postgres" -A trust -U postgres >/dev/null
  postgres off &
  server=$!
  await_database
  ask_database -c 'create database kamailio' postgres
  for table in standard usrloc presence; do
    ask_database -f "/usr/share/kamailio/postgres/$table-create.sql" kamailio >/dev/null 2>&1
  done
  stop
  cp -a "$work/postgres" "$work/postgres.empty"
}

# Starts $1 (comsipl, kamailio; on one processor: one-shard, one-processor; kamailio on PostgreSQL: durable, relaxed) on $port, with
# the state that is there.
# A shell is the parent of all its processes, so that the processor time of a database counts as the server's.
start() {
  local address=127.0.0.1:$port
  (
    if [[ $1 == one-* ]]; then taskset -cp "$share" "$BASHPID"; else taskset -cp "$server_cpus" "$BASHPID"; fi
    case $1 in
    comsipl) serve_comsipl "$share" ;;
    one-shard) serve_comsipl 1 ;;
    kamailio) serve_kamailio "$kamailio_processes" ;;
    one-processor) serve_kamailio 2 ;;
    durable)
      postgres on &
      await_database
      serve_kamailio "$kamailio_db_processes" -A DURABLE
      ;;
    relaxed)
      postgres off &
      await_database
      serve_kamailio "$kamailio_db_processes" -A DURABLE
      ;;
    esac
    wait
  ) >"$work/start.log" 2>&1 &
  server=$!
  if ! started_ms=$("$bin/probe" ready --target "$address" --patience 30 2>/dev/null); then
    echo "$1 does not start:" >&2
    tail "$work/start.log" "$work/server.log" >&2
    exit 1
  fi
}

# How many shards.
serve_comsipl() {
  printf '[storage]\ndata_dir = "%s/data"\n[limits]\nsocket_buffer_kib = %s\n' "$work" "$socket_buffer_kib" \
    >"$work/comsipl.toml"
  "$bin/comsipl" serve --config "$work/comsipl.toml" --listen "$address" --shards "$1" \
    >"$work/server.log" 2>&1 </dev/null &
  echo "$!" >"$work/server.pid"
}

# How many processes, then what the configuration is told.
serve_kamailio() {
  sed "s#@PORT@#$port#; s#@CONTROL@#unix:$work/ctl#; s#@DATABASE@#postgres://postgres:x@127.0.0.1:$database_port/kamailio#" \
    benches/peers/kamailio.cfg >"$work/kamailio.cfg"
  /usr/sbin/kamailio -DD -E -f "$work/kamailio.cfg" -Y "$work" -w "$work" -l "udp:$address" -n "$1" \
    -m 4096 -M 64 -x tlsf -X tlsf -b $((socket_buffer_kib * 1024)) "${@:2}" >"$work/server.log" 2>&1 </dev/null &
  echo "$!" >"$work/server.pid"
}

# The same without any state.
start_fresh() {
  rm -rf "$work/data"
  if [[ $1 == durable || $1 == relaxed ]]; then
    rm -rf "$work/postgres"
    cp -a "$work/postgres.empty" "$work/postgres"
  fi
  port=$(free_port)
  start "$1"
}

# ---- what is measured; each line of results.jsonl is one figure of one run

# A figure: question, server, JSON.
note() {
  jq -c --arg question "$1" --arg server "$2" --arg round "$round" \
    '{question: $question, server: $server, round: ($round | tonumber)} + .' <<<"$3" >>"$results/results.jsonl"
  jq -r '"  \(.server): \(.question): \(.rate // 0 | round), \(.us // 0 | . * 100 | round / 100) µs, p99 \(.p99_us // 0) µs \(.trouble // "")"' \
    < <(tail -n 1 "$results/results.jsonl") >&2
}

# Whether this question is to be asked of this server in this round, and was not yet.
is_wanted() {
  [[ $1 =~ $only ]] && ! jq -ne --arg question "$1" --arg server "$2" --argjson round "$round" \
    'any(inputs; .question == $question and .server == $server and .round == $round)' "$results/results.jsonl" >/dev/null
}

# In the closed loop the generator has its processors to itself and never sleeps: waking it would be the server's cost. A window
# of 256 requests keeps all shards and processes of either server busy. In the open loop a thread that never sleeps would be in
# the way of what else runs there, and of its own requests' times.
flat_out=(--poll --window 256)

# Runs the load generator against $server: patience, then its arguments. Leaves $work/run.json, empty if it did not end.
load() {
  local limit=$1 status=0
  shift
  rm -f "$work/run.json"
  timeout -k 5 "$limit" taskset -c "$load_cpus" "$bin/comsipl-loadgen" "$@" "${flat_out[@]}" --target "127.0.0.1:$port" \
    --server-pid "$server" --cpus "$load_cpus" --quiet --json "$work/run.json" >"$work/run.log" 2>&1 || status=$?
  if ((status == 0 || status == 1)) && [[ -s $work/run.json ]]; then return; fi
  if ((status == 124 || status == 137)); then
    echo "{\"trouble\": \"not done in $limit s\"}" >"$work/run.json"
  else
    tail -n 3 "$work/run.log" >&2
    echo '{"trouble": "the run broke off"}' >"$work/run.json"
  fi
}

# What a run says: $1 is what is counted.
figure() {
  jq -c --arg of "$1" 'if .trouble then . else {
    rate: .rates[$of + "_per_sec"],
    us: (if $of == "notifies" then .server_us_per_notify else .server_us_per_operation end),
    p50_us: ({registers: .percentiles.register_answer, subscribes: .percentiles.subscribe_notify,
      publishes: .percentiles.publish_answer, notifies: .percentiles.publish_notify}[$of].p50_us),
    p99_us: ({registers: .percentiles.register_answer, subscribes: .percentiles.subscribe_notify,
      publishes: .percentiles.publish_answer, notifies: .percentiles.publish_notify}[$of].p99_us),
    trouble: (if .passed then null else [
      (.audit // {} | to_entries[] | select(.key != "watchers" and .key != "missing_cseqs" and .value > 0)
        | "\(.value) \(.key | gsub("_"; " "))"),
      (.total | to_entries[] | select((.key | IN("refused", "timed_out", "wrong_document", "malformed")) and .value > 0)
        | "\(.value) \(.key | gsub("_"; " "))"),
      (.phases[] | select(.stalled) | "\(.name) stalled")] | join(", ") end),
    doubts: (.generator.doubts | join("; "))} end' "$work/run.json"
}

# One question to one server, started afresh: question, server, what is counted, patience, arguments of the generator.
ask() {
  local question=$1 name=$2 of=$3 limit=$4
  shift 4
  is_wanted "$question" "$name" || return 0
  start_fresh "$name"
  load "$limit" "$@" --keep
  note "$question" "$name" "$(figure "$of")"
  stop
}

# The same question to both, one after the other.
ask_both() {
  ask "$1" kamailio "${@:2}"
  ask "$1" comsipl "${@:2}"
}

# The highest rate that holds: what, server, arguments of the generator.
ask_capacity() {
  local question="capacity: $1" name=$2 flat_out=()
  shift 2
  is_wanted "$question" "$name" || return 0
  start_fresh "$name"
  load "$capacity_patience" capacity "$@" --limit "${limit_ms}ms" --duration "$trial_seconds" --precision "$precision"
  note "$question" "$name" "$(jq -c --arg what "$1" 'if .trouble then . else {
    rate: (if $what == "fanout" then .notifies_per_sec else .capacity_per_sec end),
    p99_us: ([.trials[] | select(.reasons == [])] | max_by(.rate) | .p99_us),
    trouble: (if .capacity_per_sec > 0 then null else "no rate holds: \(.trials[-1].reasons | join(", "))" end),
    doubts: (if .generator_limited then "beyond this rate the generator may have been in the way" else "" end)} end' \
    "$work/run.json")"
  stop
}

# PUBLISHes per second at half of what a server did in a closed loop with so many watchers each: server, presentities, watchers;
# nothing if it was not asked.
half_rate() {
  jq -rs --arg server "$1" --arg shape "$2 × $3" --argjson watchers "$3" \
    '[.[] | select(.question == $shape and .server == $server) | .rate | values] | sort
      | if length == 0 then empty else .[length / 2 | floor] / 2 / $watchers | floor end' "$results/results.jsonl"
}

# How long a change takes to its watchers when a server is half busy: presentities, watchers each, words for the rate, server,
# whose rate.
ask_latency() {
  local rate flat_out=()
  rate=$(half_rate "$5" "$1" "$2")
  [[ $rate ]] || return 0
  ask "$1 × $2, $3" "$4" notifies "$patience" fanout --presentities "$1" --watchers "$2" --rate "$rate" \
    --duration "$seconds" "${threads[@]}"
}

# What the state itself takes at the moment, into $state: of Kamailio the shared memory that is given out; of ComSIPL, started
# again, its resident memory, files included, which is nothing else then.
weigh_state() {
  if [[ $1 == kamailio ]]; then
    sleep 3 # its transactions are over then
    state=$(/usr/sbin/kamcmd -s "unix:$work/ctl" core.shmmem | awk '$1 == "used:" { print $2 }')
  else
    stop
    start "$1"
    state=$(resident_bytes)
  fi
}

# Resident memory of the server's processes, pages that they share once. Of ComSIPL's files all that has room on disk counts: a
# sync takes pages out of the process for a while that are in memory all the same.
resident_bytes() {
  local pid pids sum=0 kib of=Pss:
  pid=$(<"$work/server.pid")
  pids=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
  if [[ -d $work/data ]]; then
    of=Pss_Anon:
    sum=$(du -ck "$work"/data/*.fdb | awk 'END { print $1 }')
  fi
  for pid in $pid $pids; do
    kib=$(awk -v of="$of" '$1 == of { print $2 }' "/proc/$pid/smaps_rollup" 2>/dev/null || true)
    sum=$((sum + ${kib:-0}))
  done
  echo $((sum * 1024))
}

# Subscriptions held: what their state takes, their memory, strangers among them, and a start after a kill.
ask_holding() {
  local name=$1 empty resident few answer
  is_wanted memory "$name" || return 0
  start_fresh "$name"
  weigh_state "$name"
  empty=$state
  load "$holding_patience" subscribe --presentities "$holding" --watchers 1 "${threads[@]}" --keep
  weigh_state "$name"
  few=$state
  stop
  start_fresh "$name"
  resident=$(resident_bytes)
  load "$holding_patience" subscribe --presentities "$holding" --watchers $((watched + 1)) "${threads[@]}" --keep
  if jq -e .trouble "$work/run.json" >/dev/null; then
    note memory "$name" "$(figure subscribes)"
    stop
    return
  fi
  resident=$(($(resident_bytes) - resident))
  if [[ $name == kamailio ]]; then weigh_state kamailio; fi
  answer=$(taskset -c "$load_cpus" "$bin/probe" strangers --target "127.0.0.1:$port" --server-pid "$server" \
    --duration "$seconds")
  note strangers "$name" "$(jq -c '{rate: .answers_per_sec, us: .server_us_per_answer, trouble:
    (if .passed then null else "\([.answers[]] | add // 0) of \(.sent) answered, by \(.answers | keys | join(", "))" end)}' \
    <<<"$answer")"
  stop
  start "$name"
  note restart "$name" "{\"rate\": $started_ms}"
  if [[ $name == comsipl ]]; then state=$(resident_bytes); fi
  note "state of a subscription" "$name" "{\"rate\": $(((state - few) / held))}"
  note "state of a presentity" "$name" "{\"rate\": $(((few - empty - (state - few) / watched) / holding))}"
  note memory "$name" "{\"rate\": $((resident / (held + holding)))}"
  stop
}

# ---- the questions

make_database
threads=(--threads "$share")
registers=(registers "$patience" register --users "$registering" --duration "$seconds" "${threads[@]}")
subscribes=(subscribes "$patience" subscribe --presentities 10000 --watchers 10 "${threads[@]}")
publishes=(publishes "$patience" publish --presentities 10000 --duration "$seconds" "${threads[@]}")
usual=(notifies "$patience" fanout --presentities 100 --watchers 100 --duration "$seconds")
# One thread reads the only socket; a second one, if there is a processor for it, sends.
one_proxy=(--behind-proxy --threads $((share > 1 ? 2 : 1)))
celebrity="1 × $celebrity_watchers"
for ((round = 1; round <= rounds; round++)); do
  echo "round $round of $rounds, after $SECONDS s; load $(cut -d' ' -f1-3 /proc/loadavg)" >&2
  if (($(wc -l <"$results/floor.jsonl") < round)); then
    cut -d' ' -f1-3 /proc/loadavg >>"$results/loads"
    "$bin/floor" --threads "$share" --server-cpu "$share" --client-cpu 0 --json >>"$results/floor.jsonl"
  fi
  ask_both REGISTER "${registers[@]}"
  ask_both SUBSCRIBE "${subscribes[@]}"
  ask_both PUBLISH "${publishes[@]}"
  for shape in "1 1000" "1000 10"; do
    read -r presentities watchers <<<"$shape"
    ask_both "$presentities × $watchers" notifies "$patience" \
      fanout --presentities "$presentities" --watchers "$watchers" --duration "$seconds" "${threads[@]}"
  done
  ask_both "100 × 100" "${usual[@]}" "${threads[@]}"
  ask_both "100 × 100, one proxy" "${usual[@]}" "${one_proxy[@]}"
  if ((share > 1)); then
    for name in one-processor one-shard; do
      ask REGISTER "$name" "${registers[@]}"
      ask SUBSCRIBE "$name" "${subscribes[@]}"
      ask PUBLISH "$name" "${publishes[@]}"
      ask "100 × 100" "$name" "${usual[@]}" "${threads[@]}"
      ask "100 × 100, one proxy" "$name" "${usual[@]}" "${one_proxy[@]}"
    done
  fi
  for name in kamailio comsipl; do
    for shape in "100 100" "1000 10"; do
      read -r presentities watchers <<<"$shape"
      ask_latency "$presentities" "$watchers" "half of its own rate" "$name" "$name"
      ask_latency "$presentities" "$watchers" "half of Kamailio's rate" "$name" kamailio
    done
  done
done

# Once only, because they take long or differ by whole orders: the highest rates that hold; very many subscriptions; Kamailio
# with its state in PostgreSQL, which waits for the disk (durable) or not (relaxed); one presentity that very many watch.
round=1
for name in kamailio comsipl; do
  ask_capacity REGISTER "$name" register --users 10000 "${threads[@]}"
  # All have to subscribe within a trial.
  ask_capacity SUBSCRIBE "$name" subscribe --presentities 100 --watchers 10 "${threads[@]}"
  ask_capacity PUBLISH "$name" publish --presentities 10000 "${threads[@]}"
  ask_capacity "NOTIFY, 100 × 100" "$name" fanout --presentities 100 --watchers 100 "${threads[@]}"
done
ask_holding kamailio
ask_holding comsipl
for peer in "${databases[@]}"; do
  ask REGISTER "$peer" registers "$patience" register --users 10000 --duration "$seconds" "${threads[@]}"
  ask SUBSCRIBE "$peer" subscribes "$patience" \
    subscribe --presentities $((durable_held / 10)) --watchers 10 "${threads[@]}"
  ask PUBLISH "$peer" publishes "$patience" publish --presentities 1000 --duration "$seconds" "${threads[@]}"
  ask "100 × 100" "$peer" "${usual[@]}" "${threads[@]}"
done
ask_both "$celebrity" notifies "$celebrity_patience" \
  fanout --presentities 1 --watchers "$celebrity_watchers" --duration "$seconds" --settle 60 "${threads[@]}"

# ---- the report

if [[ $quick == yes ]]; then into=$work/report; fi
jq -n --arg command "$command" --arg date "$(date -u '+%Y-%m-%d %H:%M UTC')" \
  --arg commit "$(git describe --always --dirty 2>/dev/null || echo unknown)" \
  --arg cpu "$(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)" --arg kernel "$(uname -sr)" \
  --arg memory_gib "$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)" \
  --arg processors "$processors" --arg server_cpus "$server_cpus" --arg load_cpus "$load_cpus" \
  --argjson share "$share" --argjson kamailio_processes "$kamailio_processes" \
  --argjson kamailio_db_processes "$kamailio_db_processes" --argjson socket_buffer_kib "$socket_buffer_kib" \
  --argjson held "$held" --argjson holding "$holding" --argjson rounds "$rounds" --argjson seconds "$seconds" \
  --argjson limit_ms "$limit_ms" --arg celebrity "$celebrity" \
  --arg kamailio "$(dpkg-query -W -f '${Version}' kamailio)" \
  --arg postgres "$("$postgres_bin/postgres" --version | sed 's/.*) //; s/ .*//')" \
  '$ARGS.named' >"$results/conditions.json"
"$bin/report" "$results" "$into"
if [[ $quick == yes ]]; then cat "$into/REPORT.md"; else echo "written: $into/REPORT.md, REPORT.html, plots" >&2; fi
