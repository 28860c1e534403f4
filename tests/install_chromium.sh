#!/usr/bin/env bash
# Installs the system's Chromium, as root on Debian. Fails where it cannot.
set -euo pipefail
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1
install() { DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium; }
{ install || { apt-get update -qq && install; }; } >/dev/null
