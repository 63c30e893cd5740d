#!/usr/bin/env bash
# Prints a Python of 3.11 or newer that can make environments; says what is missing when there is none.
set -u
for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        if "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            command -v "$name"
            exit 0
        fi
        incomplete="$name"
    fi
done
if [ -n "${incomplete:-}" ]; then
    echo "$incomplete has no venv module; on Debian or Ubuntu: apt install python3-venv" >&2
else
    echo "no Python >= 3.11 found (python3 is $(python3 --version 2>&1 | head -1)); install one, or name it: make PYTHON=/path/to/python3.12" >&2
fi
exit 1
