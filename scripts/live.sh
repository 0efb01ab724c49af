#!/usr/bin/env bash
# Runs MOLDAU_LIVE of the vectors of MOLDAU_VECTORS, else of the sample kept here, on the real runtime, 0: all; half as many with
# four partitions, and half as many with results once per commit and processes that are killed; five times as many with commits and
# restarts anywhere, in memory.
set -uo pipefail
[ -z "${MOLDAU_VECTORS:-}" ] || export MOLDAU_VECTORS=$(cd "$MOLDAU_VECTORS" && pwd) || exit 1
go test -count=1 -v -timeout 120m -run '^(TestLive|TestPartitions|TestLivePartitions|TestCrashes|TestCommits|TestSkipsAtCommits)$' ./internal/conformance | awk '
  /^ *=== / || /^ *--- (PASS|SKIP)/ || /^(PASS|ok|exit status)/ { next }
  { sub(/^ *(live|partitions|crash|commits)_test\.go:[0-9]+: /, ""); print; failed = failed || /^(--- )?FAIL/ }
  END { exit failed }'
