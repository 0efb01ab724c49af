#!/usr/bin/env bash
# The long forms of what `make test` and `make verify` do in short: soak.sh [MINUTES]. Everything is scaled to the time
# there is, nothing begins after it, and a table at the end says what ran, how much of it and how it ended. Fails if anything did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
minutes=${1:-30}
rounds=${ROUNDS:-0} # of 60 s of the broker's clients and strikes, in time of their own; otherwise five in half an hour
end=$((SECONDS + minutes * 60 + rounds * 90))
report=()
failed=0

# part NAME PERCENT WHAT COMMAND... runs one part, for at most that part of the time.
part() {
  local name=$1 most=$((minutes * 60 * $2 / 100)) what=$3 start=$SECONDS verdict
  shift 3
  if [ "$SECONDS" -ge "$end" ]; then
    report+=("$(printf '%-12s %5s    %-28s not run: no time left' "$name" - "$what")")
    return
  fi
  [ "$most" -le "$((end - SECONDS))" ] || most=$((end - SECONDS))
  printf '\n==== %s: %s, %d s at most\n' "$name" "$what" "$most"
  timeout --kill-after=10 "$most" "$@"
  case $? in
    0) verdict=passed ;;
    124 | 137) verdict="FAILED: not done after $most s" failed=1 ;;
    *) verdict=FAILED failed=1 ;;
  esac
  report+=("$(printf '%-12s %5d s  %-28s %s' "$name" "$((SECONDS - start))" "$what" "$verdict")")
}

# times N is N in half an hour, and in proportion in another time; at least 1.
times() { local n=$(($1 * minutes / 30)); echo $((n > 0 ? n : 1)); }

part build 30 "everything" sh -c 'go build ./... && go test -run "^$" . ./internal/broker ./internal/broker/log ./internal/commit ./internal/table ./internal/tier ./internal/conformance'
kills=$(times 200)
part verify 40 "$kills kills" go run ./examples/flights/verify -kills "$kills" -rate 2000 -timeout "${minutes}m"
part killed 15 "applications, $(times 5) times" go test -count="$(times 5)" -timeout "${minutes}m" -run 'Killed|ProcessesShare' .
share=$((rounds * 150 / minutes))
[ "$rounds" -gt 0 ] || rounds=$(times 5) share=25
part histories "$share" "$rounds rounds of the broker" env MOLDAU_ROUNDS="$rounds" MOLDAU_ROUND=60s go test -count=1 -v -timeout 24h -run 'TestHistories' ./internal/broker
crashes=$(times 20000)
part log 20 "$crashes crashes of the broker" env MOLDAU_CRASHES="$crashes" go test -count=1 -timeout "${minutes}m" -run 'TestCrash$' ./internal/broker/log
[ "$minutes" -lt 20 ] || # less would not be all of it
  part judges 25 "Java's, at full length" env JUDGES_FULL=1 scripts/judges/run.sh smoke/eos/moldau relational/eos/moldau
part models 15 "commit, table, tier, $(times 5) times" go test -p 1 -count="$(times 5)" -timeout "${minutes}m" ./internal/commit ./internal/table ./internal/tier
part conformance 20 "${MOLDAU_VECTORS:-the sample}" scripts/conformance.sh
live=$(times 400)
[ "$minutes" -lt 180 ] || live=0
part live 30 "$live recordings (0: all)" env MOLDAU_LIVE="$live" scripts/live.sh
targets=$(grep -rhoE '^func Fuzz[A-Za-z0-9_]*' --include='*_test.go' . | wc -l)
each=$(((end - SECONDS) * 8 / 10 / targets)) # the rest goes into building
[ "$each" -ge 1 ] && part fuzz 100 "$targets targets, $each s each" scripts/fuzz.sh "${each}s"

printf '\n==== summary, %d s of %d\n' "$SECONDS" "$((minutes * 60))"
printf '%s\n' "${report[@]}"
exit "$failed"
