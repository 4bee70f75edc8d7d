"""Private runs: what they refuse, spend, keep over a stop, and tell."""

import csv
import shutil

import numpy as np
import private_runs
import pytest
from private_runs import private
from whole_runs import artefacts, assert_same, result, stop_at

from kip_flax import config as config_lib
from kip_flax import export
from kip_flax.algorithms import _privacy, dp_kip
from kip_flax.modes.train import mode as train
from kip_flax.runs.exporter import Exporter
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError


@pytest.fixture(autouse=True)
def coarse_accounting(monkeypatch):
    private_runs.account_coarsely(monkeypatch)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"support__init": "real"}, "support.init must not use .*: take 'noise'."),
        ({"support__init": "set.npz"}, "support.init must not use .*: take 'noise'."),
        (
            {"preprocess": "standard"},
            "preprocess must not use .*: take 'none' or 'centred', or fit",
        ),
        (
            {"preprocess": "zca", "dataset__preprocess_from": "digits"},
            "preprocess must not use .*: take 'none' or 'centred', or fit",
        ),
        ({"report__num_train": 5}, "report.num_train must not use .*: take 0"),
        ({"eval__networks": ("fc:1",)}, r"eval.networks must not use .*: take \(\), and --mode="),
        ({"augment": "shift"}, "augment is 'shift' and dp_kip augments nothing: take ''."),
        (
            {"dataset__validation": 0.1, "privacy__noise_seed": -1},
            "dataset.validation must not use .*: take 0, or an experiment",
        ),
        ({"support__frozen": 0.5}, "freezes no pixels"),
        ({"privacy__means_share": 1.0}, "privacy.means_share is 1.0: it must be below 1"),
        ({"privacy__start": "zero"}, "privacy.start is 'zero': take one of means, noise"),
        ({"privacy__delta": 1.0}, "privacy.delta is 1.0: it must be below 1"),
        ({"privacy__noise_multiplier": 1e-3}, "privacy.noise_multiplier is 0.001: below 0.05 it"),
        ({"privacy__average": 1.0}, "privacy.average is 1.0: it must be at least 0 and below 1"),
        ({"privacy__epsilon": 0.0}, "privacy.epsilon is 0.0: it must be above 0"),
        ({"privacy__epsilon": 1e3}, "privacy.epsilon is 1000.0: above 100 it protects nothing"),
        ({"privacy__noise_seed": -2}, "privacy.noise_seed is -2: it must be at least -1"),
        ({"privacy__clip": 1e-13}, "privacy.clip is 1e-13: it must be at least 1e-12"),
    ],
)
def test_what_would_see_training_images_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        config_lib.validate(private(**changes))


def test_a_delta_that_allows_to_publish_an_image_is_refused(digits):
    """With delta = 1/n a random image may be published: nothing is private then."""
    dp_kip.check_data(private(privacy__noise_seed=-1, privacy__delta=1e-4), digits)
    dp_kip.check_data(private(privacy__delta=0.5), digits)  # It promises nothing anyway.
    with pytest.raises(UserError, match=r"delta is 0.001 and digits .* less than 1 / 1438"):
        dp_kip.check_data(private(privacy__noise_seed=-1, privacy__delta=1e-3), digits)


def test_what_is_private_is_accepted():
    config_lib.validate(private(privacy__noise_seed=-1))
    config_lib.validate(private(dataset__validation=0.1))
    config_lib.validate(private(preprocess="zca", dataset__preprocess_from="mnist"))


@pytest.mark.slow
def test_a_noise_multiplier_ends_the_run_when_the_budget_is_spent():
    config = private(privacy__noise_multiplier=1.0, privacy__epsilon=3.0, num_steps=500)
    total = dp_kip.total_steps(config, 1000)
    assert 0 < total < 500
    spent = [
        _privacy.epsilon(_privacy.Release(0.03, 1.0, steps, 1e-4)) for steps in (total, total + 1)
    ]
    assert spent[0] <= 3 < spent[1]
    config.num_steps = total - 1
    assert dp_kip.total_steps(config, 1000) == total - 1
    config.privacy.epsilon = 1e-3
    with pytest.raises(UserError, match=r"first step spends more than privacy.epsilon=0.001"):
        dp_kip.total_steps(config, 1000)


@pytest.mark.usefixtures("quick_kernels")
def test_a_resumed_run_has_the_secret_that_it_began_with(tmp_path, monkeypatch):
    fields = {"privacy__noise_seed": -1, "privacy__noise_multiplier": 2.0, "eval__steps": (4,)}
    random = [b"secretly", b"another!"]
    monkeypatch.setattr(dp_kip.os, "urandom", lambda count: random[0][:count])
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(private(**fields), str(tmp_path))
    monkeypatch.setattr(dp_kip.os, "urandom", lambda count: random[1][:count])
    state = train.train_and_evaluate(private(**fields), str(tmp_path))
    assert state.step == 4
    assert np.asarray(state.secret).tobytes() == b"secretly"
    assert not RunFolder(tmp_path).unreadable_checkpoints.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_kernels")
@pytest.mark.parametrize("start", ["noise", "means"])
def test_a_resumed_run_is_the_same_and_spends_the_same(tmp_path, monkeypatch, start):
    config = private(privacy__start=start)
    whole = train.train_and_evaluate(config, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, 2)
        train.train_and_evaluate(config, str(tmp_path / "parts"))
    stopped = result(tmp_path / "parts")
    assert stopped["status"] == "stopped"
    parts = train.train_and_evaluate(config, str(tmp_path / "parts"))
    assert_same(parts, whole)
    assert artefacts(tmp_path / "parts") == artefacts(tmp_path / "whole")
    accounts = [result(tmp_path / name)["privacy"] for name in ("parts", "whole")]
    assert accounts[0] == accounts[1]
    assert (stopped["privacy"]["steps"], accounts[0]["steps"]) == (2, 4)
    assert accounts[0]["epsilon"] is None  # The noise can be repeated.
    with pytest.raises(UserError, match="num_steps was 4 and is now 8"):
        train.train_and_evaluate(
            private(num_steps=8, privacy__start=start), str(tmp_path / "whole")
        )


@pytest.mark.usefixtures("quick_kernels")
def test_a_private_set_says_so_and_its_files_say_nothing_else(tmp_path, capsys):
    config = private(privacy__noise_seed=-1, privacy__epsilon=2.0, privacy__start="means")
    folder, tmp_path = tmp_path, tmp_path / "run"
    train.train_and_evaluate(config, str(tmp_path))
    output = capsys.readouterr().out
    sets = {one.provenance["step"]: one for one in map(export.load_distilled, sets_of(tmp_path))}
    stated = [sets[step].provenance["privacy"] for step in (0, 2, 4)]
    noise, of_means = (f"{stated[2][f'{name}noise_multiplier']:.4g}" for name in ("", "means_"))
    line = (
        f"epsilon 2, delta 0.0001; noise multiplier {noise}, of the first step's means {of_means}"
    )
    assert line in output
    assert [one["steps"] for one in stated] == [0, 2, 4]
    epsilons = [one["epsilon"] for one in stated]
    assert epsilons[0] == 0 < epsilons[1] < epsilons[2] <= 2
    assert epsilons[2] > 1.99
    assert stated[2] == result(tmp_path)["privacy"]
    assert stated[2]["sampling_rate"] == pytest.approx(30 / 1438)
    assert stated[2]["accountant"].startswith("dp-accounting 0.")
    assert stated[2]["means_noise_multiplier"] > stated[2]["noise_multiplier"] > 0
    # Loss and accuracy of a batch would be figures of private images.
    with open(tmp_path / "history.csv", newline="") as file:
        columns = csv.DictReader(file).fieldnames
    assert not {"loss", "accuracy"} & set(columns)
    # So would a sum over them: it tells whether an image is in a training set known otherwise. The
    # tests may be split off such a set, so one image more or less changes them too.
    assert not [name for name in result(tmp_path)["data"] if "checksum" in name]
    # And so would a second run on them in the name of the first.
    shutil.rmtree(tmp_path / "checkpoints")
    for kept in ("result.json", "distilled"):  # One of both tells of the first.
        other = shutil.copytree(tmp_path, folder / f"only_{kept}")
        for path in {"result.json", "distilled"} - {kept}:
            (other / path).rename(other / f"moved_{path}")
        with pytest.raises(UserError, match="has results of steps whose checkpoints are gone"):
            train.train_and_evaluate(config, str(other))


@pytest.mark.usefixtures("quick_kernels")
def test_a_private_set_that_was_written_is_never_computed_again(tmp_path, monkeypatch):
    """It may have been published, and the same noise with other rounding would tell of images."""
    config = private(privacy__noise_seed=-1, privacy__noise_multiplier=2.0, eval__steps=(1, 3))
    config.checkpoint.every_steps = 100
    newest = {}
    write = Exporter.write

    def spied(self, step, *rest):
        saved = [int(path.name) for path in (tmp_path / "checkpoints").iterdir()]
        newest[step] = max(saved, default=None)
        return write(self, step, *rest)

    monkeypatch.setattr(Exporter, "write", spied)
    train.train_and_evaluate(config, str(tmp_path))
    assert newest == {0: None, 1: 1, 3: 3, 4: 4}  # No image is in the first.
    # Where the checkpoint is lost, the one before is no way to compute the set again.
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    with pytest.raises(UserError, match="has results of steps whose checkpoints are gone"):
        train.train_and_evaluate(config, str(tmp_path))


def sets_of(workdir):
    return sorted((workdir / "distilled").glob("*.npz"))
