#!/bin/sh
# Creates the virtual environment given as $1 with a Python 3.11 or newer.
# Set PYTHON to choose one. Debian and Ubuntu ship Python without `venv`; it is installed where we may.
set -eu
venv=$1

suits() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if suits "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "AgentFarm needs Python 3.11 or newer, and none was found on PATH." >&2
    echo "On Debian or Ubuntu: apt-get install python3.11 python3.11-venv, or set PYTHON=/path/to/python3." >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    "$(dirname "$0")/system-package.sh" "$package" "Python's venv module"
fi

rm -rf "$venv"
"$python" -m venv "$venv"
# Dependency groups need pip 25.1.
"$venv/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
