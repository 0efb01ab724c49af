#!/usr/bin/env bash
# Runs the vectors of MOLDAU_VECTORS, else the sample kept here, and ends with one line: vectors, differences, seconds.
# Fails if a vector that can be built differs in a way that docs/CONFORMANCE.md does not list.
set -uo pipefail
[ -z "${MOLDAU_VECTORS:-}" ] || export MOLDAU_VECTORS=$(cd "$MOLDAU_VECTORS" && pwd) || exit 1
go test -count=1 -v -timeout 30m -run '^TestVectors$' ./internal/conformance | awk '
  /^ *=== / || /^ *--- (PASS|SKIP)/ || /^(PASS|FAIL|ok|exit status)/ { next }
  { sub(/^ *conformance_test\.go:[0-9]+: /, "") }
  /^[0-9]+ vectors, [0-9]+ differences, [0-9]+ seconds$/ { last = $0; next }
  { print }
  END { if (last == "") exit 1; print last }'
