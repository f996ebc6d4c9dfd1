#!/usr/bin/env bash
# Packs the programs with the shared libraries they need and the demo's data, for machines that have
# none of it: ./deploy/pack.sh OUT.tar.zst|OUT.tar.gz|FOLDER [BUILD]
#
# BUILD is a build folder that is up to date; without one the preset of this machine is built. What
# comes out runs wherever glibc and libstdc++ are no older than here, from any folder:
#
#   tar -xf assay.tar.zst && assay-*/bin/assay demo
#
# Left out: glibc, libstdc++ and NVIDIA's libraries. A build with CUDA needs the driver and the CUDA
# 13 libraries (cublasLt) of the machine it runs on.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

out=${1:?usage: deploy/pack.sh OUT.tar.zst|OUT.tar.gz|FOLDER [BUILD]}
build=${2:-$root/$("$root/deploy/build.sh" "" assay assay-coordinator assay-worker assay-runner assay-grader)}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
version=$("$build/bin/assay" --version | awk '{print $2}')
folder=$stage/assay-$version
cmake --install "$build" --prefix "$folder" --strip >&2

# Of every program: what the loader finds for it here, its libraries' libraries among it.
mkdir "$folder/lib"
ldd "$build"/bin/assay "$build"/bin/assay-* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
while read -r library; do
  case $(basename "$library") in
    libc.so.*|libm.so.*|libdl.so.*|librt.so.*|libpthread.so.*|libresolv.so.*) ;;  # glibc
    libstdc++.so.*|libgcc_s.so.*) ;;
    libcuda*|libcublas*|libnccl*|libnvidia*) ;;
    *) install -m 644 "$library" "$folder/lib/" && strip --strip-unneeded "$folder/lib/$(basename "$library")" ;;
  esac
done

case $out in
  *.tar.zst|*.tar.gz) tar -C "$stage" -caf "$out" "assay-$version" ;;
  *) mkdir -p "$out" && cp -a "$folder/." "$out/" ;;
esac
echo "$out: $(du -sh "$folder" | cut -f1) unpacked, $(ls "$folder/lib" | wc -l) libraries" >&2
