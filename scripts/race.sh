#!/usr/bin/env bash
# Tests under the race detector, which is the one thing here that needs cgo.
set -euo pipefail
if ! command -v "$(go env CC)" > /dev/null; then
  echo "skipped: race: no C compiler ($(go env CC))"
  exit 0
fi
CGO_ENABLED=1 go test -race -timeout 15m "$@"
