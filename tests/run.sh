#!/usr/bin/env bash
# Sets up a virtual environment (VENV, by default .venv) and runs the tests in it.
# Arguments go to pytest: bash tests/run.sh tests/krr/ridge_test.py -x
# Python compiles what it imports; to compile all packages ahead takes a minute.
# Two tests at once, because most of the time is compiling on one core; -n 0 for one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --no-compile -r tests/requirements.txt
exec "$venv/bin/python" -m pytest -n 2 --dist worksteal "$@"
