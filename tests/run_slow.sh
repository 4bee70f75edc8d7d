#!/usr/bin/env bash
# The long tests (more than an hour), the others once more, then 20 rounds of faults for each of two
# algorithms. The environment is that of tests/run.sh. A last line "-rs" names what was left out: the
# tests of the second line without PyTorch or tests/requirements-browser.txt, and one of the first
# without requirements-tpu.txt. Programs are compiled as for users, see conftest.py.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=0
export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=3"
bash tests/run.sh -n 0 -rs -m slow || failed=1
bash tests/run.sh -n 0 -rs tests/modes/report/browser_test.py tests/export/torch_files_test.py \
  tests/modes/export_set_test.py || failed=1
bash tests/run.sh || failed=1
for algorithm in kip frepo; do
  "${VENV:-.venv}/bin/python" tests/faults/run.py --rounds=20 --algorithm="$algorithm" || failed=1
done
exit "$failed"
