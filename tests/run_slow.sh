#!/usr/bin/env bash
# The long tests (more than an hour), then 20 runs killed at random moments and resumed.
# The environment is that of tests/run.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tests/run.sh -m slow
"${VENV:-.venv}/bin/python" tests/kills.py --rounds=20
