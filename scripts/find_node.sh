#!/usr/bin/env bash
# Ends quietly with Node 20 or newer and npm on the path; says what is missing otherwise.
set -u
version=$(node --version 2>/dev/null)
major=${version#v}
if [ "${major%%.*}" -ge 20 ] 2>/dev/null && command -v npm >/dev/null; then
    exit 0
fi
echo "Node >= 20 with npm is needed to build the front end; found ${version:-none}; install it from your system's packages or nodejs.org" >&2
exit 1
