#!/usr/bin/env bash
# The long tests (more than an hour), then the others, then 20 rounds of faults for each of two
# algorithms. Each part runs although an earlier one failed. The environment is that of tests/run.sh;
# pytest's -rs lists what was skipped: tests that need requirements-tpu.txt (first call), PyTorch or
# tests/requirements-browser.txt (second). Programs are compiled as for users, see conftest.py.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

failed=0
export XLA_FLAGS="${XLA_FLAGS:-} --xla_backend_optimization_level=3 \
  --xla_cpu_use_fusion_emitters=true --xla_cpu_parallel_codegen_split_count=32"
# One worker: if a test ends it, another goes on with the rest.
bash tests/run.sh -n 1 -rs -m slow || failed=1
bash tests/run.sh -n 0 -rs tests/modes/report/browser_test.py tests/export/torch_files_test.py \
  tests/modes/export_set_test.py || failed=1
bash tests/run.sh || failed=1
for algorithm in kip frepo; do
  "${VENV:-.venv}/bin/python" tests/faults/run.py --rounds=20 --algorithm="$algorithm" || failed=1
done
exit "$failed"
