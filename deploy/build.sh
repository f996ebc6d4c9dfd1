#!/usr/bin/env bash
# Installs what is missing and builds a preset: ./deploy/build.sh [cpu|cuda|asan|tsan] [targets...]
# Without one: cuda where nvcc is found, else cpu.
# Prints the build folder's name on stdout; everything else goes to stderr.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-$(./deploy/preset.sh)}
shift || true
./deploy/packages.sh >&2
cmake --preset "$preset" >&2
# A compiler of gRPC code takes about 1 GiB: two jobs fit every machine we build on.
cmake --build --preset "$preset" --parallel "${ASSAY_JOBS:-$(nproc)}" ${@:+--target "$@"} >&2
echo "build/$preset"
