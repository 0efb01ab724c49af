#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz.sh [TIME]. A finding is kept by go test under testdata/fuzz, to be committed
# with its mend.
set -euo pipefail
time=${1:-10s}
grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
  grep -hoE '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go | sed 's/^func //' | while read -r target; do
    echo "== $dir $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir" < /dev/null
  done
done
