#!/usr/bin/env bash
# Checks formatting and runs clang-tidy over the tree, or over the files given:
# ./deploy/lint.sh [FILE...]. clang-tidy takes about half an hour for everything on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t files < <(if (($#)); then printf '%s\n' "$@"; else git ls-files '*.cc' '*.h' '*.cu' '*.cuh'; fi)
clang-format --dry-run -Werror "${files[@]}"

cmake --preset cpu >/dev/null
cmake --build build/cpu --target assay_proto assay_proto_grpc --parallel "${ASSAY_JOBS:-$(nproc)}" >/dev/null
printf '%s\n' "${files[@]}" | grep '\.cc$' |
  xargs -P "${ASSAY_JOBS:-$(nproc)}" -n 1 clang-tidy --quiet -p build/cpu
