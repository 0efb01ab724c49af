#!/usr/bin/env bash
# Runs MOLDAU_LIVE of the vectors of MOLDAU_VECTORS, else of the sample kept here, on the real runtime.
set -uo pipefail
[ -z "${MOLDAU_VECTORS:-}" ] || export MOLDAU_VECTORS=$(cd "$MOLDAU_VECTORS" && pwd) || exit 1
go test -count=1 -v -timeout 60m -run '^TestLive$' ./internal/conformance | awk '
  /^ *=== / || /^ *--- (PASS|SKIP)/ || /^(PASS|ok|exit status)/ { next }
  { sub(/^ *live_test\.go:[0-9]+: /, ""); print; failed = failed || /^(--- )?FAIL/ }
  END { exit failed }'
