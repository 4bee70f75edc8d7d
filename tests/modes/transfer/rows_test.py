"""The rows of a transfer: seeds, choices on held-out images, and going on where it stopped."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from made_transfers import NAME, Stop, make_config

from kip_flax import export, networks, preprocess
from kip_flax.modes.transfer import rows, session
from kip_flax.modes.transfer.mode import transfer_file
from kip_flax.networks import progress, train, trial
from kip_flax.runs import setup
from kip_flax.runtime import waiting
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError


@pytest.mark.slow
def test_a_seed_is_the_same_among_more_and_on_more_devices(files, tmp_path):
    config = make_config(networks=("fc:1",), seeds=2)
    config.mesh.data = 1
    (row,) = transfer_file(config, files, str(tmp_path))
    # The published rate: a few units, for a loss that is a mean over images and classes.
    assert all(0.01 < rate < 10 for rate in row["learning_rates"])
    config.transfer.seeds, config.mesh.data = 3, -1
    (more,) = transfer_file(config, files, str(tmp_path / "more"))
    assert more["accuracies"][:2] == pytest.approx(row["accuracies"], abs=0.02)
    assert more["learning_rates"][:2] == pytest.approx(row["learning_rates"], rel=1e-4)


@pytest.mark.parametrize(
    "at", [pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 8]
)
def test_an_interrupted_transfer_ends_as_one_that_was_not(at, files, tmp_path, monkeypatch):
    """Stopped in the choice, in the seeds of the first set, and in those of the second."""
    options = {"lr_factor": (0.1, 1.0), "choice_steps": 150, "average": 0.9, "optimizer": "sgd"}
    config = make_config(networks=("fc:1",), baselines=("random",), centred=True, **options)
    with monkeypatch.context() as patched:
        parts = Stop(patched).parts
        whole = transfer_file(config, files, str(tmp_path / "whole"))
    # 2 sets: 2 candidates side by side in 2 parts, 3 seeds side by side in 3.
    assert parts == 2 * [(0, 100), (100, 150), (0, 100), (100, 200), (200, 300)]
    with monkeypatch.context() as patched:
        stopped = Stop(patched, at)
        assert len(transfer_file(config, files, str(tmp_path / "parts"))) == (at - 1) // 5
    going_on = Stop(monkeypatch)
    other = transfer_file(config, files, str(tmp_path / "parts"))
    assert stopped.parts + going_on.parts == parts  # Nothing was done twice.
    for one, two in zip(whole, other, strict=True):
        assert one.pop("seconds") != two.pop("seconds")
        assert one == two


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param({"lr_factor": (0.1, 1.0)}, marks=pytest.mark.slow),
        # Its count of steps is an integer.
        {"learning_rate": (0.001, 0.003), "optimizer": "adam"},
    ],
    ids=["sgd", "adam"],
)
def test_another_number_of_devices_begins_the_round_anew(rates, files, tmp_path, monkeypatch):
    config = make_config(networks=("fc:1",), **rates)
    with monkeypatch.context() as patched:
        Stop(patched, at=2)
        transfer_file(config, files, str(tmp_path))
    config.mesh.data = 2
    going_on = Stop(monkeypatch)
    (row,) = transfer_file(config, files, str(tmp_path))
    assert going_on.parts == 2 * [(0, 100), (100, 200), (200, 300)]  # What was chosen stays.
    assert len(row["tried"]) == 2


def test_what_is_there_is_not_computed_again(files, tmp_path, quick_kernels, monkeypatch):
    config = make_config(networks=("fc:1",))
    first = transfer_file(config, files, str(tmp_path))
    config.transfer.networks = ("fc:1", "krr")

    monkeypatch.setattr(rows, "network_row", None)
    both = transfer_file(config, files, str(tmp_path))
    assert both[0] == first[0]
    assert [row["network"] for row in both] == ["fc:1", "krr"]


def test_the_test_set_has_no_say(files, tmp_path, digits, monkeypatch):
    """With other test labels the same candidate is chosen, of the same held-out accuracy."""
    config = make_config(networks=("fc:1",), lr_factor=(1e-4, 0.03, 1.0))
    (row,) = transfer_file(config, files, str(tmp_path / "a"))
    wrong = dataclasses.replace(digits, test_labels=(digits.test_labels + 1) % 10)
    monkeypatch.setattr(setup, "load", lambda _: wrong)
    (other,) = transfer_file(config, files, str(tmp_path / "b"))
    assert row["tried"] == other["tried"]
    assert row["lr_factor"] == other["lr_factor"] != 1e-4
    assert row["mean"] > 0.4 > other["mean"]


def images_of(measured):
    """What was tested on, one after the other."""
    return [kind for kind, _ in itertools.groupby(x for x in measured if isinstance(x, str))]


def test_choices_are_made_by_one_seed_and_few_steps(files, tmp_path, monkeypatch):
    """A candidate that is behind is not tested, nor is one that diverged, as of rate 1e4."""
    measured = []
    make = train.make_trainer

    def counting(*arguments):
        trainer = make(*arguments)

        def advance(states, trainings, recipe, first, last):
            measured.append((len(set(map(str, trainings.keys))), recipe.num_steps))
            return trainer.advance(states, trainings, recipe, first, last)

        def count_right(states, images, labels, first, last):
            measured.append("test" if (np.asarray(labels) >= 0).sum() == 60 else "held out")
            return trainer.count_right(states, images, labels, first, last)

        return dataclasses.replace(trainer, advance=advance, count_right=count_right)

    monkeypatch.setattr(train, "make_trainer", counting)
    monkeypatch.setattr(trial.Trial, "probe", lambda *_: progress.Cost(0, 0, 0, 0))
    config = make_config(networks=("fc:1",), lr_factor=(1e4, 0.3, 1e-4), choice_steps=60, seeds=4)
    (row,) = transfer_file(config, files, str(tmp_path / "three"))
    assert row["lr_factor"] == 0.3
    assert next(accuracy for _, _, accuracy in row["tried"]) is None
    short = [one for one in measured if one == (1, 60)]
    assert short
    # The choice, the test, and what tells which network is kept.
    assert images_of(measured) == ["held out", "test", "held out"]
    steps = [one for one in measured if one not in short and not isinstance(one, str)]
    assert set(steps) == {(4, 300)}
    # Of a single candidate nothing is chosen.
    measured.clear()
    (row,) = transfer_file(make_config(networks=("fc:1",)), files, str(tmp_path / "one"))
    assert row["tried"] == []
    assert images_of(measured) == ["test", "held out"]


def test_what_another_transfer_left_is_not_taken_for_this_one_s(files, tmp_path, monkeypatch):
    """Stopped before its first row, and then another set in the same folder."""
    config = make_config(networks=("fc:1",))
    other = str(Path(files).with_name(NAME.format(0)))
    with monkeypatch.context() as patched:
        Stop(patched, at=2)
        assert transfer_file(config, files, str(tmp_path)) == []
    with pytest.raises(UserError, match=r"another transfer: distilled set \(checksum\)"):
        transfer_file(config, other, str(tmp_path))
    (tmp_path / "transfer.json").unlink()  # As a line advises where it cannot be read.
    going_on = Stop(monkeypatch)
    (row,) = transfer_file(config, other, str(tmp_path))
    assert going_on.parts == [(0, 100), (100, 200), (200, 300)]
    (alone,) = transfer_file(config, other, str(tmp_path / "alone"))
    assert row["accuracies"] == alone["accuracies"]


def test_a_network_that_another_transfer_kept_is_no_rival(files, tmp_path):
    config = make_config(networks=("fc:1",))
    transfer_file(config, files, str(tmp_path))
    better = networks.load(tmp_path / "network").facts["held_out"]
    (tmp_path / "transfer.json").unlink()
    transfer_file(config, str(Path(files).with_name(NAME.format(0))), str(tmp_path))
    kept = networks.load(tmp_path / "network").facts
    assert kept["held_out"] < better
    assert kept["set"].endswith(NAME.format(0))


def test_a_kernel_that_cannot_be_solved_with_names_its_set(files, tmp_path, quick_kernels):
    found = export.load_distilled(files)
    twice = np.repeat(found.images[:5], 2, axis=0)
    path = tmp_path / NAME.format(3)
    export.write_distilled(
        path,
        twice,
        found.labels,
        export.Description(preprocess.from_arrays(found.preprocess), found.class_names),
    )
    config = make_config(networks=("krr",))
    config.reg = 0.0
    message = r"^kernel ridge regression on 10 distilled: the kernel of the support is not positive"
    with pytest.raises(UserError, match=message):
        transfer_file(config, str(path), str(tmp_path / "out"))


def test_a_checkpoint_of_another_row_is_left_alone(tmp_path):
    watch = waiting.Watch(lambda: False, Console())
    kept = progress.Measured(0.3, 0.0, 2, None, False, 0.5)
    with session.open_session(str(tmp_path), watch) as opened:
        opened.save("x", progress.Progress([kept], {"a": np.ones((2, 3), np.float32)}, 4))
    like = {"a": np.zeros((2, 3), np.float32)}
    with session.open_session(str(tmp_path), watch) as opened:
        assert opened.restore("y", like) == progress.Progress()
        found = opened.restore("x", like)
        assert (found.step, found.measured) == (4, [kept])
        assert found.states["a"].tolist() == [[1, 1, 1], [1, 1, 1]]
        assert opened.restore("x", {"a": np.zeros((4, 3))}) == progress.Progress([kept])
        opened.save("x", progress.Progress([kept, kept]))
    with session.open_session(str(tmp_path), watch) as opened:
        assert opened.restore("x", like) == progress.Progress([kept, kept])


def test_a_folder_named_transfer_is_the_checkpoint_of_an_older_version_or_left_alone(tmp_path):
    watch = waiting.Watch(lambda: False, Console())
    kept = progress.Measured(0.3, 0.0, 2, None, False, 0.5)
    with session.open_session(str(tmp_path), watch) as opened:
        opened.save("x", progress.Progress([kept]))
    (tmp_path / ".unfinished").rename(tmp_path / "transfer")
    with session.open_session(str(tmp_path), watch) as opened:
        assert opened.restore("x", {}) == progress.Progress([kept])
    session.discard(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "transfer" / "checkpoints").mkdir(parents=True)
    (tmp_path / "transfer" / "config.json").touch()  # Of a training run.
    with session.open_session(str(tmp_path), watch) as opened:
        assert opened.restore("x", {}) == progress.Progress()
    session.discard(str(tmp_path))
    assert {path.name for path in tmp_path.rglob("*")} == {"transfer", "checkpoints", "config.json"}
