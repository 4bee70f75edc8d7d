"""A run of three of the digits (`dataset.classes`) in every mode: no other class comes in."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from whole_runs import STEPS, small

from kip_flax import data, export, modes, networks
from kip_flax.modes.compare.mode import compare
from kip_flax.modes.evaluate.mode import evaluate_file
from kip_flax.modes.export_set.mode import export_file
from kip_flax.modes.figures import mode as figures
from kip_flax.modes.import_set.mode import import_file
from kip_flax.modes.plan.mode import plan_run
from kip_flax.modes.predict import mode as predict
from kip_flax.modes.report import mode as report
from kip_flax.modes.train import mode as train
from kip_flax.modes.transfer.mode import transfer_file
from kip_flax.runtime.console import Console

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_kernels")]
CLASSES = (8, 3, 5)
NAMES = ("8", "3", "5")


def chosen(**fields):
    config = small(dataset__classes=CLASSES, support__size=6, eval__num_test=0, **fields)
    config.transfer.update(
        {"networks": ("krr", "fc:1"), "width": 64, "num_steps": 200, "seeds": 2, "baselines": ()}
    )
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, quick_kernels):
    folder = tmp_path_factory.mktemp("run")
    train.train_and_evaluate(chosen(report__num_train=100), str(folder))
    return folder


@pytest.fixture(scope="module")
def path(workdir):
    (found,) = (workdir / "distilled").glob(f"*_ckpt{STEPS}.npz")
    return str(found)


@pytest.fixture(scope="module")
def accuracy(workdir):
    """Of the run, on the test images of its classes."""
    return json.loads((workdir / "result.json").read_text())["evaluations"][-1]["accuracy"]


@pytest.fixture(scope="module")
def transferred(path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("transferred")
    return folder, transfer_file(chosen(), path, str(folder))


def test_every_mode_is_here():
    untested = [name for name in modes.NAMES if f"test_mode_{name}" not in globals()]
    assert untested == ["train"]  # The run above.


def test_mode_evaluate(path, accuracy):
    assert evaluate_file(chosen(), path)["accuracy"] == pytest.approx(accuracy, abs=1e-7)


def test_mode_transfer(transferred, accuracy):
    folder, rows = transferred
    by_kernel, by_network = (row for row in rows if row["set"] == "distilled")
    assert by_kernel["mean"] == pytest.approx(accuracy, abs=1e-7)
    assert by_network["mean"] > 0.6
    assert networks.load(folder / "network").class_names == NAMES


def test_mode_compare(workdir, tmp_path, accuracy):
    (line,) = compare(chosen(), [str(workdir)], str(tmp_path))
    assert line.figures["krr"]["mean"] == pytest.approx(accuracy, abs=1e-7)


def test_mode_predict(path, transferred, tmp_path):
    digits = data.load_dataset("digits")
    rows = np.flatnonzero(np.isin(digits.test_labels, CLASSES))[:30]
    for row in rows:
        Image.fromarray(digits.test_images[row, ..., 0]).save(tmp_path / f"{row}.png")
    console = Console(quiet=True)
    for classifier in (
        predict.load_set(path, console),
        predict.load_network(str(transferred[0] / "network"), console),
    ):
        predict.predict_pictures(classifier, str(tmp_path), str(tmp_path / "out"), console)
        with open(tmp_path / "out" / predict.FILE, newline="") as file:
            found = {row["file"]: row["class"] for row in csv.DictReader(file)}
        right = [found[f"{row}.png"] == str(digits.test_labels[row]) for row in rows]
        assert np.mean(right) > 0.7
        assert set(found.values()) == set(NAMES)


def test_mode_plan():
    """Label Solve passes once over the training images of the classes: 431, and not 1,437."""
    assert plan_run(chosen(algorithm="ls", batch_size=400), Console(quiet=True)).steps == 2


def test_mode_report(workdir):
    (workdir / "analysis.npz").unlink()
    report.write_reports(str(workdir), None, Console(quiet=True))
    with np.load(workdir / "analysis.npz") as analysis:
        assert analysis["confusion"].shape == (3, 3)


def test_mode_figures(workdir):
    written = figures.write_figures(str(workdir), Console(quiet=True))
    assert figures.read_run(workdir).class_names == NAMES
    assert all(file.stat().st_size for file in written)


def test_mode_export(path, tmp_path):
    export_file(path, str(tmp_path), Console(quiet=True))
    assert "- Classes: 8, 3, 5.\n" in (tmp_path / "README.md").read_text()


def test_mode_import(path, tmp_path):
    """A file of images and labels alone, as others publish them."""
    found = export.load_distilled(path)
    np.savez(tmp_path / "theirs.npz", images=found.images, labels=found.labels)
    config = chosen()
    (written,) = import_file(config, str(tmp_path / "theirs.npz"), str(tmp_path / "out"), "kip")
    assert export.load_distilled(written).class_names == NAMES
