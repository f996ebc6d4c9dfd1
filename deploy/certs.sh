#!/usr/bin/env bash
# Makes the certificates of an Assay system: an authority of its own, one certificate for the
# coordinator, one for each worker. docs/security.md says how they are used.
#
#   certs.sh ca DIR                      DIR/ca.crt and DIR/ca.key
#   certs.sh server DIR NAME[,NAME...]   DIR/server.crt and .key; names and addresses clients dial
#   certs.sh worker DIR WORKER_ID        DIR/worker-WORKER_ID.crt and .key
#
# ca.key stays where certificates are made; a machine gets its own pair and ca.crt, nothing else.
# A worker's certificate is good for WORKER_ID alone and for no server; the coordinator's for its
# names alone and for no worker. Nothing that exists is overwritten.
# ASSAY_CERT_DAYS: how long certificates of servers and workers hold [365]; the authority ten years.
set -euo pipefail
umask 077

die() {
  echo "certs.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '5,7s/^# *//p' "$0" >&2
  exit 64
}

days=${ASSAY_CERT_DAYS:-365}
[[ $days =~ ^[1-9][0-9]{0,4}$ ]] || die "ASSAY_CERT_DAYS '$days': a number of days"
command -v openssl >/dev/null || die "needs the program openssl"
[ $# -ge 2 ] || usage
verb=$1
dir=$2
mkdir -p "$dir"

absent() {
  [ ! -e "$1" ] || die "$1 is there already: remove it first if it is to be replaced"
}

new_key() {
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null
}

# sign NAME SUBJECT EXTENSIONS: a key, and a certificate of the authority in $dir.
sign() {
  local name=$1 subject=$2 extensions=$3
  [ -r "$dir/ca.key" ] || die "$dir/ca.key is missing: run \`certs.sh ca $dir\` first"
  absent "$dir/$name.crt"
  absent "$dir/$name.key"
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064  # now, not then: the name is local
  trap "rm -rf '$work'" EXIT
  printf '%s\n' "$extensions" >"$work/extensions"
  new_key "$work/key"
  openssl req -new -key "$work/key" -subj "$subject" -out "$work/request"
  openssl x509 -req -in "$work/request" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -days "$days" -sha256 \
    -extfile "$work/extensions" -out "$work/crt" 2>/dev/null
  mv "$work/key" "$dir/$name.key"
  mv "$work/crt" "$dir/$name.crt"
  chmod 644 "$dir/$name.crt"
  echo "$dir/$name.crt"
}

case $verb in
  ca)
    [ $# -eq 2 ] || usage
    absent "$dir/ca.crt"
    absent "$dir/ca.key"
    new_key "$dir/ca.key"
    openssl req -x509 -new -key "$dir/ca.key" -subj "/CN=assay authority" -days 3650 -sha256 \
      -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
      -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$dir/ca.crt"
    chmod 644 "$dir/ca.crt"
    echo "$dir/ca.crt"
    ;;
  server)
    [ $# -eq 3 ] || usage
    names=
    IFS=, read -r -a hosts <<<"$3"
    for host in "${hosts[@]}"; do
      if [[ $host =~ ^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$ || $host == *:* ]]; then
        names+=",IP:$host"
      elif [[ $host =~ ^[A-Za-z0-9.-]+$ ]]; then
        names+=",DNS:$host"
      else
        die "'$host' is neither a host name nor an address"
      fi
    done
    sign server "/CN=assay coordinator" "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=${names#,}"
    ;;
  worker)
    [ $# -eq 3 ] || usage
    [[ $3 =~ ^[A-Za-z0-9._-]{1,64}$ ]] || die "worker id '$3': 1 to 64 of A-Z a-z 0-9 . _ -"
    sign "worker-$3" "/CN=assay worker" "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=clientAuth
subjectAltName=URI:urn:assay:worker:$3"
    ;;
  *) usage ;;
esac
