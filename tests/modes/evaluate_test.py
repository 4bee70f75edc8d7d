"""`--mode=evaluate`: the measures of a file are those of the run that wrote it."""

import json

import pytest
from whole_runs import STEPS, result, small

from kip_flax.modes.evaluate import mode as evaluate_mode

pytestmark = pytest.mark.usefixtures("quick_kernels")


def test_evaluating_the_file_gives_what_the_run_measured(undisturbed, tmp_path):
    workdir, _ = undisturbed
    path = workdir / "distilled" / f"FC1_ssize10_nozca_l_aug_ckpt{STEPS}.npz"
    measures = evaluate_mode.evaluate_file(small(), str(path), str(tmp_path))
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["evaluated_on"] == "test"
    assert {name: evaluation[name] for name in measures} == measures
    last = result(workdir)["evaluations"][-1]
    assert measures["accuracy"] == pytest.approx(last["accuracy"], abs=1e-7)
    assert measures["mse"] == pytest.approx(last["mse"], rel=1e-5)
