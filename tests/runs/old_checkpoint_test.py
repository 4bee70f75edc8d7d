"""Runs that the program stopped before its modules moved into packages go on today.

Each archive in tests/fixtures/old_runs holds `run`, a workdir that was stopped at step 5 of 8, and
`final.npz`, the images and labels that the same run ended with undisturbed. Of the sets that a run
exports only those of KIP are kept.
"""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from kip_flax import export
from kip_flax.modes.train import mode as train

# Of images and labels. DC trains its network through ReLUs, whose kinks make rounding grow: its
# images move by 0.5 on average in these steps.
TOLERANCE = {"kip": 1e-5, "kip_newton": 1e-5, "ls": 1e-5, "dc": 3e-3}
OLD_RUNS = Path(__file__).resolve().parents[1] / "fixtures" / "old_runs"


@pytest.mark.parametrize("name", sorted(TOLERANCE))
def test_a_run_of_the_old_program_goes_on_to_the_same_set(name, tmp_path, capsys):
    shutil.unpack_archive(OLD_RUNS / f"{name}.zip", tmp_path)
    run = tmp_path / "run"
    before = json.loads((run / "result.json").read_text())
    assert before["status"] == "stopped"
    config = ConfigDict(json.loads((run / "config.json").read_text()))
    # Fields that came after them.
    config.eval.networks, config.support.frozen, config.dataset.classes = (), 0.0, ()
    config.dataset.preprocess_from, config.time_limit = "", 0.0
    config.newton.block, config.newton.growth = 0, 1
    config.eval.label_loss, config.kernel.mirrored = "squared_error", False
    train.train_and_evaluate(config, str(run))
    assert "going on from the checkpoint of step 5" in capsys.readouterr().out
    after = json.loads((run / "result.json").read_text())
    assert after["status"] == "finished"
    tested = before["data"]["tested"]  # Rows say it themselves today.
    kept = [{"tested": tested, **row} for row in before["evaluations"]]
    assert after["evaluations"][: len(kept)] == kept
    with open(run / "distilled" / "index.csv", newline="") as file:
        *_, row = csv.DictReader(file)
    last = export.load_distilled(run / "distilled" / row["URL"])
    with np.load(tmp_path / "final.npz") as final:
        for got, expected in ((last.images, final["images"]), (last.labels, final["labels"])):
            np.testing.assert_allclose(got, expected, rtol=TOLERANCE[name], atol=TOLERANCE[name])
