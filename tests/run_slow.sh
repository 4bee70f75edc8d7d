#!/usr/bin/env bash
# The long tests (more than an hour), then 20 rounds of faults for each of two algorithms.
# The environment is that of tests/run.sh; tests/requirements-*.txt add optional tests to it.
# Programs are compiled as for users, see conftest.py.
set -euo pipefail
cd "$(dirname "$0")/.."

export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=3"
bash tests/run.sh -n 0 -m slow
for algorithm in kip frepo; do
  "${VENV:-.venv}/bin/python" tests/faults/run.py --rounds=20 --algorithm="$algorithm"
done
