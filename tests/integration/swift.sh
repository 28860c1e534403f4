#!/usr/bin/env bash
# OpenStack Swift with its S3 API on loopback, from Debian's packages: a real object store for `make test-s3`.
#
#   swift.sh run COMMAND…   install if need be, start, run the command with the store in its environment, stop
#   swift.sh install        exit code 77 where that cannot be done here: not root, or no apt
#   swift.sh start FOLDER   keeps everything in the folder; prints how to reach the store as `export` lines
#   swift.sh stop FOLDER    ends what was started there
set -euo pipefail

PACKAGES=(swift-account swift-container swift-object swift-proxy memcached)
KEY=test:tester SECRET=not-to-be-written-anywhere
UNAVAILABLE=77
system=(env -u PYTHONHOME -u PYTHONPATH -u VIRTUAL_ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin)  # its Python has Swift, no other

say() { echo "swift.sh: $*" >&2; }

is_installed() { "${system[@]}" which swift-{account,container,object,proxy}-server memcached; } >/dev/null

install() (
  ! is_installed || exit 0
  [ "$(id -u)" = 0 ] || { say "cannot install Swift: not root"; exit $UNAVAILABLE; }
  command -v apt-get >/dev/null || { say "cannot install Swift: there is no apt-get here"; exit $UNAVAILABLE; }
  policy=/usr/sbin/policy-rc.d  # without one the packages would start services of their own
  if [ ! -e $policy ]; then
    trap 'rm $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
  fi
  say "installing ${PACKAGES[*]}"
  apt_install || { "${system[@]}" apt-get update -qq && apt_install; } ||
    { say "cannot install Swift: apt-get has no packages"; exit $UNAVAILABLE; }
)

apt_install() {
  "${system[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${PACKAGES[@]}"
} >/dev/null

free_ports() {  # COUNT
  "${system[@]}" python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

launch() {  # FOLDER PORT COMMAND…
  local folder=$1 port=$2; shift 2
  "${system[@]}" setsid "$@" >>"$folder/log" 2>&1 </dev/null &
  local pid=$!
  echo $pid >>"$folder/pids"
  until (: <>/dev/tcp/127.0.0.1/"$port") 2>/dev/null; do
    kill -0 $pid 2>/dev/null || { say "$1 did not start:"; tail -n 20 "$folder/log" >&2; return 1; }
    sleep 0.1
  done
}

configure() {  # SERVER PORT: the part of its configuration that is common
  printf '%s\n' "[DEFAULT]" "bind_ip = 127.0.0.1" "bind_port = $2" "workers = 0" "user = $(id -un)" \
    "swift_dir = $folder" "devices = $folder/devices" "mount_check = false" "log_level = WARNING" >"$folder/$1.conf"
}

start() {
  local folder=$1 account container object proxy cache server
  mkdir -p "$folder/devices/disk"
  folder=$(cd "$folder" && pwd)
  "${system[@]}" python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.swift", b"1")' "$folder/devices/disk" ||
    { say "$folder is on a filesystem without extended attributes; set TMPDIR to another"; return 1; }
  read -r account container object proxy cache < <(free_ports 5)

  printf '%s\n' "[swift-hash]" "swift_hash_path_suffix = tests" "[storage-policy:0]" "name = one" "default = yes" \
    >"$folder/swift.conf"
  for server in account container object; do
    configure $server "${!server}"
    printf '%s\n' "[pipeline:main]" "pipeline = $server-server" \
      "[app:$server-server]" "use = egg:swift#$server" >>"$folder/$server.conf"
    "${system[@]}" swift-ring-builder "$folder/$server.builder" create 4 1 1
    "${system[@]}" swift-ring-builder "$folder/$server.builder" add "r1z1-127.0.0.1:${!server}/disk" 1
    "${system[@]}" swift-ring-builder "$folder/$server.builder" rebalance
  done >>"$folder/log"
  configure proxy "$proxy"
  cat >>"$folder/proxy.conf" <<CONF
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo versioned_writes proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_${KEY/:/_} = $SECRET .admin
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$cache
CONF
  for server in catch_errors gatekeeper healthcheck listing_formats bulk copy slo dlo versioned_writes; do
    printf '%s\n' "[filter:$server]" "use = egg:swift#$server" >>"$folder/proxy.conf"
  done

  launch "$folder" "$cache" memcached -u "$(id -un)" -l 127.0.0.1 -p "$cache" -m 16 -t 1
  for server in account container object proxy; do
    launch "$folder" "${!server}" "swift-$server-server" "$folder/$server.conf" -v
  done

  printf 'export %s\n' "AWS_ENDPOINT_URL=http://127.0.0.1:$proxy" "AWS_ACCESS_KEY_ID=$KEY" \
    "AWS_SECRET_ACCESS_KEY=$SECRET" AWS_DEFAULT_REGION=us-east-1
}

stop() {
  [ -e "$1/pids" ] || return 0
  while read -r pid; do kill -9 "$pid" 2>/dev/null || true; done <"$1/pids"  # nothing is to be kept
  rm "$1/pids"
}

run() {
  install
  local exports
  scratch=$(mktemp -d)
  trap 'stop "$scratch"; rm -rf "$scratch"' EXIT
  exports=$(start "$scratch")
  eval "$exports"
  "$@"
}

"$@"
