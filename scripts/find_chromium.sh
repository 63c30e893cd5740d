#!/usr/bin/env bash
# Finds a Chromium for the browser tests and prints its path; as root on Debian installs one first.
# Never fails: without one the tests are skipped, and say so.
set -u
found() {
    for name in "${INNERVIEW_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        [ -n "$name" ] && command -v "$name" && return 0
    done
    mac="/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    [ -x "$mac" ] && echo "$mac"
}
if ! path=$(found) && [ -e /etc/debian_version ] && [ "$(id -u)" = 0 ]; then
    echo "installing Chromium for the browser tests" >&2
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-dejavu; } >&2
fi
found || echo "no Chromium found: the browser tests will not run; install chromium, or set INNERVIEW_CHROMIUM to its path" >&2
exit 0
