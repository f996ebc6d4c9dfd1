#!/usr/bin/env bash
# Builds everything and passes all tests. With SANITIZE=1 also the AddressSanitizer and
# ThreadSanitizer builds (a long run).
set -euo pipefail
cd "$(dirname "$0")/.."

test_preset() {
  ./deploy/build.sh "$1"
  # Integration tests start whole systems of processes: one at a time beside the unit tests.
  ctest --preset "$1" --parallel "${ASSAY_JOBS:-$(nproc)}"
}

test_preset cpu
if [ "${SANITIZE:-0}" = 1 ]; then
  test_preset asan
  test_preset tsan
fi
