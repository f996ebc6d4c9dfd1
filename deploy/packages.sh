#!/usr/bin/env bash
# Installs what building and testing Assay needs on Debian 12 or Ubuntu 24.04. Safe to run again:
# packages already present are left alone, and nothing is asked of apt when none is missing.
set -euo pipefail

packages=(
  build-essential cmake ninja-build ccache mold pkg-config git
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler libabsl-dev
  libspdlog-dev libfmt-dev libcli11-dev libyaml-cpp-dev nlohmann-json3-dev
  libsqlite3-dev sqlite3 libzstd-dev libpcre2-dev libutf8proc-dev libssl-dev openssl
  libgtest-dev libgmock-dev libbenchmark-dev iproute2 zstd
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "packages.sh: missing ${missing[*]}; run this script as root to install them" >&2
    exit 1
  }
  sudo=(sudo)
fi
echo "packages.sh: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -q
"${sudo[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
