#!/usr/bin/env bash
# Builds everything, the CUDA code too where nvcc is found, and passes all tests; those that need a
# GPU skip and say so where there is none. With SANITIZE=1 also the AddressSanitizer and
# ThreadSanitizer builds (a long run).
set -euo pipefail
cd "$(dirname "$0")/.."

test_preset() {
  ./deploy/build.sh "$1"
  # Integration tests start whole systems of processes: one at a time beside the unit tests.
  ctest --preset "$1" --parallel "${ASSAY_JOBS:-$(nproc)}"
}

test_preset "$(./deploy/preset.sh)"
if [ "${SANITIZE:-0}" = 1 ]; then
  test_preset asan
  test_preset tsan
fi
