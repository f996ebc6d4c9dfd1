#!/usr/bin/env bash
# Checks formatting and runs clang-tidy over the tree, or over the files given:
# ./deploy/lint.sh [FILE...]. clang-tidy reads what the machine's preset compiles (CUDA's host code
# where nvcc is found) and takes more than an hour for everything on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."

mapfile -t files < <(if (($#)); then printf '%s\n' "$@"; else git ls-files '*.cc' '*.h' '*.cu' '*.cuh'; fi)
clang-format --dry-run -Werror "${files[@]}"

preset=$(./deploy/preset.sh)
cmake --preset "$preset" >/dev/null
cmake --build "build/$preset" --target assay_proto assay_proto_grpc --parallel "${ASSAY_JOBS:-$(nproc)}" >/dev/null
compiled=$(grep -o "\"file\": \"$PWD/[^\"]*" "build/$preset/compile_commands.json" | sed "s|.*\"$PWD/||")
printf '%s\n' "${files[@]}" | grep '\.cc$' | grep -Fxf <(printf '%s\n' "$compiled") |
  xargs -P "${ASSAY_JOBS:-$(nproc)}" -n 1 clang-tidy --quiet -p "build/$preset"
