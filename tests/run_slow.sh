#!/usr/bin/env bash
# The long tests (more than an hour), then 20 rounds of faults for each of two algorithms.
# The environment is that of tests/run.sh. The tests of the second line are skipped without PyTorch or
# what is in tests/requirements-browser.txt; one of the first without requirements-tpu.txt.
# Programs are compiled as for users, see conftest.py.
set -euo pipefail
cd "$(dirname "$0")/.."

export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=3"
bash tests/run.sh -n 0 -m slow
bash tests/run.sh -n 0 -rs tests/modes/report/browser_test.py tests/export/torch_files_test.py \
  tests/modes/export_set_test.py
for algorithm in kip frepo; do
  "${VENV:-.venv}/bin/python" tests/faults/run.py --rounds=20 --algorithm="$algorithm"
done
