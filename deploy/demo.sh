#!/usr/bin/env bash
# The demo on a fresh machine: installs what is missing, builds, runs a whole sweep on this machine's
# CPU and prints its table. Arguments go to `assay demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(./deploy/build.sh cpu assay assay-coordinator assay-worker assay-runner assay-grader)
exec "$build/bin/assay" demo "$@"
