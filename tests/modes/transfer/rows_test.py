"""The rows of a transfer: seeds, choices on held-out images, and going on where it stopped."""

import dataclasses

import numpy as np
import pytest
from made_transfers import make_config

from kip_flax.modes.transfer import rows, session
from kip_flax.modes.transfer.mode import transfer_file
from kip_flax.networks import train
from kip_flax.runs import setup
from kip_flax.runtime import signals
from kip_flax.runtime.console import Console


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


def stop_after(monkeypatch, calls):
    """Makes the transfer believe in a signal after so many parts."""
    seen = iter(range(10**6))

    class Stopping:
        def __enter__(self):
            return lambda: next(seen) >= calls - 1

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(signals, "stop_signals", Stopping)


@pytest.mark.parametrize("calls", [2, 10])
def test_an_interrupted_transfer_ends_as_one_that_was_not(calls, files, tmp_path, monkeypatch):
    config = make_config(networks=("fc:1",), baselines=("random",), lr_factor=(0.1, 1.0))
    whole = transfer_file(config, files, str(tmp_path / "whole"))
    advanced = []
    make = train.make_trainer

    def counting(*arguments, **options):
        trainer = make(*arguments, **options)

        def advance(*arguments):
            advanced.append(arguments[-2:])
            return trainer.advance(*arguments)

        return dataclasses.replace(trainer, advance=advance)

    monkeypatch.setattr(train, "make_trainer", counting)
    with monkeypatch.context() as patched:
        stop_after(patched, calls)
        stopped = transfer_file(config, files, str(tmp_path / "parts"))
        assert len(stopped) == (calls - 1) // 6
    parts = transfer_file(config, files, str(tmp_path / "parts"))
    assert len(advanced) == 12  # 2 sets, 2 candidates, 3 parts: nothing was done twice.
    for one, other in zip(whole, parts, strict=True):
        assert one.pop("seconds") != other.pop("seconds")
        assert one == other


def test_what_is_there_is_not_computed_again(files, tmp_path, quick_kernels, monkeypatch):
    config = make_config(networks=("fc:1",))
    first = transfer_file(config, files, str(tmp_path))
    config.transfer.networks = ("fc:1", "krr")

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(rows, "_measure", refuse)
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


def test_a_candidate_that_is_behind_is_not_tested(files, tmp_path, digits, monkeypatch):
    """Nor is one that diverged, as one of rate 1e4 does."""
    measured = []
    make = train.make_trainer

    def counting(*arguments, **options):
        trainer = make(*arguments, **options)

        def accuracy(states, images, labels):
            measured.append("test" if len(labels) == 60 else "held out")
            return trainer.accuracy(states, images, labels)

        return dataclasses.replace(trainer, accuracy=accuracy)

    monkeypatch.setattr(train, "make_trainer", counting)
    config = make_config(networks=("fc:1",), lr_factor=(1e4, 0.3, 1e-4))
    (row,) = transfer_file(config, files, str(tmp_path))
    assert row["lr_factor"] == 0.3
    assert measured == ["held out", "held out", "test", "held out"]


def test_a_checkpoint_of_another_row_is_left_alone(tmp_path):
    with session.open_session(str(tmp_path), Console()) as opened:
        opened.save("x", 4, {"a": np.ones(3)}, [])
    with session.open_session(str(tmp_path), Console()) as opened:
        assert opened.restore("y", {"a": np.ones(3)}) == (None, [])
        (states, step), results = opened.restore("x", {"a": np.zeros(3)})
        assert (step, results) == (4, [])
        assert states["a"].tolist() == [1, 1, 1]
