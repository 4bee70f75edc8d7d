"""`--mode=evaluate`: the measures of a file are those of the run that wrote it."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from whole_runs import STEPS, result, small

from kip_flax.modes.evaluate import mode as evaluate_mode
from kip_flax.modes.import_set.mode import import_file
from kip_flax.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("quick_kernels")


def test_evaluating_the_file_gives_what_the_run_measured(undisturbed, tmp_path, capsys):
    workdir, _ = undisturbed
    path = workdir / "distilled" / f"FC1_ssize10_nozca_l_aug_ckpt{STEPS}.npz"
    measures = evaluate_mode.evaluate_file(small(), str(path), str(tmp_path))
    assert capsys.readouterr().out.endswith("by KRR (fc, depth 1, ntk; reg 1e-06)\n")
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["evaluated_on"] == "test"
    assert {name: evaluation[name] for name in measures} == measures
    last = result(workdir)["evaluations"][-1]
    assert measures["accuracy"] == pytest.approx(last["accuracy"], abs=1e-7)
    assert measures["mse"] == pytest.approx(last["mse"], rel=1e-5)
    with jax.enable_x64(False):  # As in a notebook.
        assert evaluate_mode.evaluate_file(small(), str(path)) == measures


def test_results_do_not_go_among_the_pictures(undisturbed, tmp_path):
    """The next command would take the folder for a class."""
    (path,) = (undisturbed[0] / "distilled").glob(f"*_ckpt{STEPS}.npz")
    for name in ("a", "b"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "pictures" / name / "1.png")
    config = small(dataset__name="folder", dataset__data_dir=str(tmp_path / "pictures"))
    inside = str(tmp_path / "pictures" / "out")
    for command in (
        lambda: evaluate_mode.evaluate_file(config, str(path), inside),
        lambda: import_file(config, str(path), inside, "auto"),
    ):
        with pytest.raises(UserError, match="whose folders are the classes"):
            command()
