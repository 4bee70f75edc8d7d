#!/usr/bin/env bash
# The long tests (more than an hour), then 20 rounds of faults.
# The environment is that of tests/run.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tests/run.sh -n 0 -m slow
"${VENV:-.venv}/bin/python" tests/faults/run.py --rounds=20
