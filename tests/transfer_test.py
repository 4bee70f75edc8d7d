"""A transfer from file to table: choices, baselines, resume, and the line for every mistake."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from quick import quick_kernel

from configs import kip_digits
from kip_flax import (
    baselines,
    checkpoint,
    data,
    export,
    finite,
    kernels,
    krr,
    loop,
    preprocess,
    tasks,
    train,
    transfer,
    transfer_rows,
    transfer_sets,
)
from kip_flax import config as config_lib
from kip_flax.errors import UserError

NAME = "FC1_ssize10_nozca_l_noaug_ckpt{}.npz"


def make_config(**changes):
    config = kip_digits.get_config()
    config.eval.num_test = 60
    fields = {
        "networks": ("krr", "fc:1"),
        "width": 128,
        "num_steps": 300,
        "every_steps": 100,
        "seeds": 3,
        "ntk_inputs": 10,
    }
    config.transfer.update(fields | changes)
    config_lib.validate(config)
    return config


@pytest.fixture(scope="module")
def digits():
    return data.load_dataset("digits")


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(kernels, "make_kernel", quick_kernel)


def write(path, digits, rows, **changes):
    fitted = preprocess.fit("standard", digits.train_images)
    labels = np.asarray(krr.centered_one_hot(digits.train_labels[rows], 10))
    told = {
        "images": preprocess.apply(fitted, digits.train_images[rows]),
        "labels": labels,
        "preprocess": "standard",
        "preprocess_arrays": preprocess.to_arrays(fitted),
        "class_names": digits.class_names,
        "kernel": {},
        "provenance": {},
    }
    export.write_distilled(path, **(told | changes))
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory, digits):
    """A set of nearest-to-mean images, and one of poor ones as its step 0."""
    folder = tmp_path_factory.mktemp("sets")
    good = baselines.kmeans(digits.train_images, digits.train_labels, 10, 10)
    poor = [np.flatnonzero(digits.train_labels == c)[0] for c in range(10)]
    write(folder / NAME.format(0), digits, np.array(poor))
    return write(folder / NAME.format(60), digits, good)


def by_name(rows):
    return {(row["set"], row["size"], row["network"]): row for row in rows}


def test_the_table_of_a_transfer(files, tmp_path, quick, digits, capsys):
    config = make_config(baselines=baselines.BASELINES, ladder=(10, 20, 100), lr_factor=(0.3, 1.0))
    rows = by_name(transfer.transfer_file(config, files, str(tmp_path)))
    sets = [(name, 10) for name in ("distilled", *baselines.BASELINES)]
    sets += [("random", 20), ("random", 100)]
    assert sorted(rows) == sorted((*s, network) for s in sets for network in ("krr", "fc:1"))
    for row in rows.values():
        assert row["mean"] == pytest.approx(np.mean(row["accuracies"]))
    # The kernel regression again, by hand.
    measured = train.evaluate_file(config, files)["accuracy"]
    assert rows["distilled", 10, "krr"]["accuracies"] == [measured]
    assert len(rows["random", 10, "krr"]["accuracies"]) == 3
    networks = {name: row for name, row in rows.items() if name[2] == "fc:1"}
    for row in networks.values():
        assert len(row["accuracies"]) == len(row["learning_rates"]) == 3
        assert row["std"] == pytest.approx(np.std(row["accuracies"], ddof=1))
        held_out = {factor: share for factor, _, share in row["tried"]}
        assert row["held_out"] == max(held_out.values()) == held_out[row["lr_factor"]]
    # More images teach more, and good ones more than poor ones.
    ladder = [rows["random", n, "fc:1"]["mean"] for n in (10, 20, 100)]
    assert ladder == sorted(ladder)
    assert ladder[-1] > 0.7
    assert rows["distilled", 10, "fc:1"]["mean"] > rows["initial", 10, "fc:1"]["mean"]
    told = capsys.readouterr().out
    assert "10 distilled" in told
    assert "images are worth" in told
    content = json.loads((tmp_path / "transfer.json").read_text())
    assert by_name(content["rows"]) == rows
    assert set(content["worth"]) == {"krr", "fc:1"}
    assert (tmp_path / "worth.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_seed_is_the_same_among_more_and_on_more_devices(files, tmp_path):
    config = make_config(networks=("fc:1",), seeds=2)
    config.mesh.data = 1
    (row,) = transfer.transfer_file(config, files, str(tmp_path))
    # The published rate: a few units, for a loss that is a mean over images and classes.
    assert all(0.01 < rate < 10 for rate in row["learning_rates"])
    config.transfer.seeds, config.mesh.data = 3, -1
    (more,) = transfer.transfer_file(config, files, str(tmp_path / "more"))
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

    monkeypatch.setattr(loop, "stop_signals", Stopping)


@pytest.mark.parametrize("calls", [2, 10])
def test_an_interrupted_transfer_ends_as_one_that_was_not(calls, files, tmp_path, monkeypatch):
    config = make_config(networks=("fc:1",), baselines=("random",), lr_factor=(0.1, 1.0))
    whole = transfer.transfer_file(config, files, str(tmp_path / "whole"))
    advanced = []
    make = finite.make_trainer

    def counting(*arguments, **options):
        trainer = make(*arguments, **options)

        def advance(*arguments):
            advanced.append(arguments[-2:])
            return trainer.advance(*arguments)

        return dataclasses.replace(trainer, advance=advance)

    monkeypatch.setattr(finite, "make_trainer", counting)
    with monkeypatch.context() as patched:
        stop_after(patched, calls)
        stopped = transfer.transfer_file(config, files, str(tmp_path / "parts"))
        assert len(stopped) == (calls - 1) // 6
    parts = transfer.transfer_file(config, files, str(tmp_path / "parts"))
    assert len(advanced) == 12  # 2 sets, 2 candidates, 3 parts: nothing was done twice.
    for one, other in zip(whole, parts, strict=True):
        assert one.pop("seconds") != other.pop("seconds")
        assert one == other


def test_what_is_there_is_not_computed_again(files, tmp_path, quick, monkeypatch):
    config = make_config(networks=("fc:1",))
    first = transfer.transfer_file(config, files, str(tmp_path))
    config.transfer.networks = ("fc:1", "krr")

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(transfer_rows, "_measure", refuse)
    both = transfer.transfer_file(config, files, str(tmp_path))
    assert both[0] == first[0]
    assert [row["network"] for row in both] == ["fc:1", "krr"]


def test_the_test_set_has_no_say(files, tmp_path, digits, monkeypatch):
    """With other test labels the same candidate is chosen, of the same held-out accuracy."""
    config = make_config(networks=("fc:1",), lr_factor=(1e-4, 0.03, 1.0))
    (row,) = transfer.transfer_file(config, files, str(tmp_path / "a"))
    wrong = dataclasses.replace(digits, test_labels=(digits.test_labels + 1) % 10)
    monkeypatch.setattr(train, "load", lambda _: wrong)
    (other,) = transfer.transfer_file(config, files, str(tmp_path / "b"))
    assert row["tried"] == other["tried"]
    assert row["lr_factor"] == other["lr_factor"] != 1e-4
    assert row["mean"] > 0.4 > other["mean"]


def test_a_candidate_that_is_behind_is_not_tested(files, tmp_path, digits, monkeypatch):
    """Nor is one that diverged, as one of rate 1e4 does."""
    measured = []
    make = finite.make_trainer

    def counting(*arguments, **options):
        trainer = make(*arguments, **options)

        def accuracy(states, images, labels):
            measured.append("test" if len(labels) == 60 else "held out")
            return trainer.accuracy(states, images, labels)

        return dataclasses.replace(trainer, accuracy=accuracy)

    monkeypatch.setattr(finite, "make_trainer", counting)
    config = make_config(networks=("fc:1",), lr_factor=(1e4, 0.3, 1e-4))
    (row,) = transfer.transfer_file(config, files, str(tmp_path))
    assert row["lr_factor"] == 0.3
    assert measured == ["held out", "held out", "test", "held out"]


def test_baselines_do_not_see_the_held_out_images(digits):
    real = tasks.Targets(digits.train_images, digits.train_labels, 10)
    import jax

    pool, held = transfer_sets.hold_out(real, 0.1, jax.random.key(0))
    assert len(held.labels) == round(0.1 * len(real.labels))
    assert len(pool.labels) + len(held.labels) == len(real.labels)
    counts = np.bincount(held.labels)
    assert counts.max() - counts.min() <= 1
    together = np.sort(np.concatenate([pool.images, held.images]).reshape(len(real.labels), -1), 0)
    assert np.array_equal(together, np.sort(real.images.reshape(len(real.labels), -1), 0))


def test_a_diverging_training_is_told_after_the_others(files, tmp_path, quick, capsys, monkeypatch):
    config = make_config(networks=("fc:1", "krr"), lr_factor=(1e4,), ladder=(10, 20))
    told = r"fc:1 on 10 distilled, fc:1 on 10 random, .*: the training diverged.*10000"
    with pytest.raises(UserError, match=told) as caught:
        transfer.transfer_file(config, files, str(tmp_path))
    assert "\n" not in str(caught.value)
    rows = json.loads((tmp_path / "transfer.json").read_text())["rows"]
    assert [(row["network"], row["size"]) for row in rows] == [("krr", n) for n in (10, 10, 20)]
    table = capsys.readouterr().out.split("fc:1      krr")[-1]
    assert f"10 distilled  diverged  {100 * rows[0]['mean']:.2f}" in table
    assert "krr: 10 images are worth" in table
    assert "fc:1: 10 images" not in table
    assert (tmp_path / "worth.png").stat().st_size > 1000
    # Asked for again, nothing is trained again.
    monkeypatch.setattr(transfer_rows, "krr_row", None)
    monkeypatch.setattr(transfer_rows, "network_row", None)
    with pytest.raises(UserError, match=told):
        transfer.transfer_file(config, files, str(tmp_path))


def test_another_transfer_in_the_folder_is_refused(files, tmp_path):
    transfer.transfer_file(make_config(networks=("fc:1",)), files, str(tmp_path))
    with pytest.raises(UserError, match=r"another transfer: transfer.seeds was 3 and is now 2"):
        transfer.transfer_file(make_config(seeds=2), files, str(tmp_path))
    first = str(Path(files).with_name(NAME.format(0)))
    with pytest.raises(UserError, match=r"another transfer: distilled set \(checksum\)"):
        transfer.transfer_file(make_config(networks=("fc:1",)), first, str(tmp_path))


def test_mistakes_are_told_in_one_line(files, tmp_path, digits, quick):
    rows = np.arange(10)
    pixels = np.zeros((10, 6, 8, 1), np.float32)
    other = write(tmp_path / "other_ckpt1.npz", digits, rows, images=pixels)
    lonely = shutil.copy(files, tmp_path / NAME.format(7))
    nameless = shutil.copy(files, tmp_path / "set.npz")
    for changes, path, told in (
        ({}, other, "has images of 6x8x1, digits has 8x8x1"),
        ({"networks": ("vgg11_bn",)}, files, "8x8 pixels are too small for vgg11_bn"),
        ({"networks": ("convnet:4",)}, files, "8x8 pixels are too small for 4 pooling layers"),
        ({"baselines": ("initial",)}, lonely, "the initial images .*_ckpt0.npz are not there"),
        ({"baselines": ("label_solve",)}, nameless, "does not end in _ckptSTEP.npz"),
        ({"ladder": (5000,)}, files, "5000 real images are asked for and 1294 are not held out"),
    ):
        with pytest.raises(UserError, match=told) as caught:
            transfer.transfer_file(make_config(**changes), str(path), str(tmp_path / "run"))
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_row_is_left_alone(tmp_path):
    with checkpoint.open_manager(str(tmp_path), 1) as manager:
        transfer_rows._save(manager, {"a": np.ones(3)}, {"job": "x", "at": 4, "results": []})
        manager.wait_until_finished()
        assert transfer_rows._saved(manager, "y", {"a": np.ones(3)}) == (None, [])
        (states, at), results = transfer_rows._saved(manager, "x", {"a": np.zeros(3)})
        assert (at, results) == (4, [])
        assert states["a"].tolist() == [1, 1, 1]


def test_other_data_in_the_same_folder_are_refused(files, tmp_path, digits, monkeypatch):
    config = make_config(networks=("fc:1",), num_steps=1, every_steps=1)
    transfer.transfer_file(config, files, str(tmp_path))
    other = dataclasses.replace(digits, train_images=255 - digits.train_images)
    monkeypatch.setattr(train, "load", lambda _: other)
    with pytest.raises(UserError, match=r"another transfer: data \(checksum\)"):
        transfer.transfer_file(config, files, str(tmp_path))
