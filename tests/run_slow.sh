#!/usr/bin/env bash
# The long tests (more than an hour), then 20 rounds of faults for each of two algorithms.
# The environment is that of tests/run.sh. What is in tests/requirements-*.txt, or PyTorch, adds the
# tests of the second line, which are skipped without.
# Programs are compiled as for users, see conftest.py.
set -euo pipefail
cd "$(dirname "$0")/.."

export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=3"
bash tests/run.sh -n 0 -m slow
bash tests/run.sh -n 0 -m "slow or not slow" -rs tests/modes/report/browser_test.py \
  tests/project/tpu_compiler_test.py tests/export/torch_files_test.py tests/modes/export_set_test.py
for algorithm in kip frepo; do
  "${VENV:-.venv}/bin/python" tests/faults/run.py --rounds=20 --algorithm="$algorithm"
done
