#!/usr/bin/env bash
# The long forms of what `make test` and `make verify` do in short, in so many minutes once all is built: soak.sh [MINUTES]. Each
# part is done again and again for its share of the time, at least once, and nothing begins after the end; so a busy machine does
# less, and does not fail for it. A table at the end says what ran, how often and how it ended. Fails if anything did, or was not
# done in twenty minutes.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
minutes=${1:-30}
rounds=${ROUNDS:-0} # of 60 s of the broker's clients and strikes, in time of their own; otherwise about five in half an hour
end=1000000
limit=1800 # seconds after which what runs is taken to hang
report=()
failed=0
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

# part NAME PERCENT MOST WHAT COMMAND... runs one part, up to MOST times, while the next is likely to end in its share; $unit
# counts them.
part() {
  local name=$1 share=$((minutes * 60 * $2 / 100)) most=$3 what=$4 start=$SECONDS n=0 began status=0
  shift 4
  while [ "$n" -lt "$most" ] && [ "$SECONDS" -lt "$end" ]; do
    began=$SECONDS
    printf '\n==== %s: %s\n' "$name" "$what"
    unit=$n timeout --kill-after=10 "$limit" "$@" || { status=$?; break; }
    n=$((n + 1))
    [ $((2 * SECONDS - began - start)) -le "$share" ] || break
  done
  case $status in
    0) [ "$n" -gt 0 ] && status="passed, $n of $most times" || status='not run: no time left' ;;
    124 | 137) status="FAILED: not done after $limit s" failed=1 ;;
    *) status="FAILED, after $n times" failed=1 ;;
  esac
  report+=("$(printf '%-12s %5d s  %-32s %s' "$name" "$((SECONDS - start))" "$what" "$status")")
}

# times N is N in half an hour, and in proportion in another time; at least 1.
times() { local n=$(($1 * minutes / 30)); echo $((n > 0 ? n : 1)); }

# tests PACKAGE FLAGS... runs the tests of a package as they were built.
tests() { local name=${1//\//_}.test; (cd "$1" && shift && exec "$bin/$name" -test.timeout "$((limit - 30))s" "$@"); }

# build makes the binaries: one for each package that is tested below, the two of verify, and those that other scripts will find built.
build() {
  go build -o "$bin" ./examples/flights ./examples/flights/verify ./cmd/moldau ./internal/judges || return
  go test -c -o "$bin/conformance.test" ./internal/conformance || return
  for p in . internal/broker internal/broker/log internal/commit internal/table internal/tier; do
    go test -c -o "$bin/${p//\//_}.test" "./$p" || return
  done
}

models() { for p in commit table tier; do tests "internal/$p" || return; done; }
export -f tests build models
export bin limit

part build 30 1 everything bash -c build
end=$((SECONDS + minutes * 60)) limit=1200
part verify 15 "$(times 10)" '20 kills' "$bin/verify" -run "$bin/flights"
part killed 8 "$(times 5)" 'applications' bash -c 'tests . -test.run "Killed|ProcessesShare"'
if [ "$rounds" -gt 0 ]; then
  end=$((end + rounds * 90)) limit=$((limit + rounds * 90))
  part histories 0 1 "$rounds rounds of the broker" env MOLDAU_ROUNDS="$rounds" MOLDAU_ROUND=60s bash -c 'tests internal/broker -test.v -test.run TestHistories'
  limit=1200
else
  part histories 20 "$(times 5)" 'a round of the broker' env MOLDAU_ROUNDS=1 MOLDAU_ROUND=60s bash -c 'tests internal/broker -test.v -test.run TestHistories'
fi
part log 15 "$(times 10)" '2,000 crashes of the broker' bash -c 'MOLDAU_SEED=$((1 + 400 * unit)) MOLDAU_CRASHES=2000 tests internal/broker/log -test.run "TestCrash$"'
for topology in smoke relational; do
  [ "$minutes" -lt 20 ] || # less would not be all of it
    part judges 8 1 "Java's $topology, at full length" env JUDGES_FULL=1 scripts/judges/run.sh "$topology/eos/moldau"
done
part models 6 "$(times 5)" 'commit, table, tier' bash -c models
part conformance 5 1 "${MOLDAU_VECTORS:-the sample}" scripts/conformance.sh
part live 8 "$(times 3)" '20 recordings, live' bash -c 'MOLDAU_SEED=$unit MOLDAU_LIVE=20 scripts/live.sh'
targets=$(grep -rhoE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . | wc -l)
each=$(((end - SECONDS) * 7 / 10 / targets)) # the rest goes into building
[ "$each" -ge 1 ] || each=1
limit=$((targets * each + 900))
part fuzz 0 1 "$targets targets, $each s each" scripts/fuzz.sh "${each}s"

printf '\n==== summary, %d s\n' "$SECONDS"
printf '%s\n' "${report[@]}"
exit "$failed"
