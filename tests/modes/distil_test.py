"""`kip_flax.distill`: what the command line does with the same images, from arrays."""

import contextlib
import importlib
import os
import signal
import sys
import tempfile
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import kip_flax
from configs import default, frepo_cifar10, kip_digits
from kip_flax import export
from kip_flax.data import datasets
from kip_flax.export import predictor
from kip_flax.modes.compare import mode as compare
from kip_flax.modes.evaluate import mode as evaluate_mode
from kip_flax.modes.report import mode as report
from kip_flax.modes.train import distil, length
from kip_flax.modes.train import mode as train
from kip_flax.modes.transfer import mode as transfer
from kip_flax.runtime import sharding
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped

pytestmark = pytest.mark.usefixtures("quick_kernels")
FEW = {"num_steps": 3, "eval.steps": (0,), "batch_size": 40, "report.num_train": 0}


@pytest.fixture(scope="module")
def arrays(digits):
    return digits.train_images[:300], digits.train_labels[:300]


def test_arrays_give_the_set_that_their_file_gives(arrays, digits, tmp_path):
    test = digits.test_images[:50], digits.test_labels[:50]
    found = kip_flax.distill(*arrays, test=test, fields=FEW)
    named = dict(zip(("train_images", "train_labels"), arrays, strict=True))
    np.savez(tmp_path / "mine.npz", **named, test_images=test[0], test_labels=test[1])
    config = distil._default()
    config.support.size = 10
    config.update_from_flattened_dict(FEW)
    config.dataset.name, config.dataset.data_dir = "npz", str(tmp_path / "mine.npz")
    train.train_and_evaluate(config, str(tmp_path / "run"))
    (path,) = (tmp_path / "run" / "distilled").glob("*_ckpt3.npz")
    expected = export.load_distilled(path)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert found.images.shape == (10, 8, 8, 1)
    assert found.class_names == tuple("0123456789")
    assert np.abs(found.pictures() - expected.pictures()).max() == 0


def test_a_notebook_sees_arguments_and_no_paths_that_are_gone(arrays, tmp_path, capsys):
    assert kip_flax.distill is distil.distill  # With its signature and its docstring.
    assert "distill" in dir(kip_flax)
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        _ = kip_flax.distil
    kip_flax.distill(*arrays, fields=FEW)
    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    assert f"kip_flax {kip_flax.__version__}: kip\n" in printed
    assert tempfile.gettempdir() not in printed
    kip_flax.distill(*arrays, fields=FEW, workdir=str(tmp_path))
    kept = capsys.readouterr().out
    assert f"report  {tmp_path}" in kept
    assert {line.split()[0] for line in printed.splitlines()} < {
        line.split()[0] for line in kept.splitlines()
    }


def test_a_notebook_without_float64_gets_the_same_set(arrays):
    fields = FEW | {"algorithm": "kip_solve"}
    expected = kip_flax.distill(*arrays, fields=fields)
    with jax.enable_x64(False):
        found = kip_flax.distill(*arrays, fields=fields)
        scores = predictor.of(found).predict(arrays[0]).scores
        assert jnp.zeros(1).dtype == jnp.float32  # It is as before.
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(scores, predictor.of(expected).predict(arrays[0]).scores)


@pytest.mark.parametrize(
    "function",
    [
        train.train_and_evaluate,
        evaluate_mode.evaluate_file,
        transfer.transfer_file,
        compare.compare,
        report.write_reports,
        predictor.Predictor.predict,
    ],
)
def test_what_notebooks_call_takes_float64_itself(function):
    assert function.__code__ is sharding.with_float64(lambda: None).__code__


def test_what_is_returned_classifies(arrays):
    found = kip_flax.distill(*arrays, fields=FEW)
    assert not found.path.exists()  # It was in a folder for a moment.
    predictions = predictor.of(found).predict(arrays[0])
    assert np.mean(predictions.classes == arrays[1]) > 0.6


def test_labels_may_be_names(arrays):
    names = np.array(["b", "c", "a"])
    rows = arrays[1] < 3
    numbers = kip_flax.distill(arrays[0][rows], (arrays[1][rows] + 1) % 3, fields=FEW)
    named = kip_flax.distill(arrays[0][rows][..., 0], names[arrays[1][rows]], fields=FEW)
    assert named.class_names == ("a", "b", "c")
    np.testing.assert_array_equal(named.images, numbers.images)
    np.testing.assert_array_equal(named.labels, numbers.labels)
    assert named.images.shape == (3, 8, 8, 1)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([0, 2, 10, 1], object), None),
        (np.array(["x", "y", "x", "z"], object), ("x", "y", "z")),
        (np.array([b"x", "\u00e4".encode(), b"x", b"z"]), ("x", "z", "\u00e4")),
    ],
    ids=["a column of numbers", "a column of names", "bytes"],
)
def test_labels_are_what_their_entries_are(labels, names):
    found = distil._arrays(np.zeros((4, 8, 8), np.uint8), labels, None)
    assert tuple(found.get("class_names", ())) == (names or ())
    if names is None:
        np.testing.assert_array_equal(found["labels"], [0, 2, 10, 1])


def test_a_configuration_has_its_own_images_and_stays_as_it_is(tmp_path, capsys):
    config = kip_digits.get_config()
    before = config.to_dict()
    found = kip_flax.distill(config=config, fields=FEW, workdir=str(tmp_path))
    assert config.to_dict() == before
    (path,) = (tmp_path / "distilled").glob("*_ckpt3.npz")
    np.testing.assert_array_equal(found.images, export.load_distilled(path).images)
    assert "step 3: test accuracy" in capsys.readouterr().out
    again = kip_flax.distill(config=config, fields=FEW, workdir=str(tmp_path))
    assert "nothing to do" in capsys.readouterr().out
    np.testing.assert_array_equal(again.images, found.images)


@pytest.mark.parametrize("each", [8, 58])
def test_the_default_batch_fits_what_is_left_of_small_classes(each):
    labels = np.arange(10 * each) % 10
    config = default.get_config()
    part = np.zeros((len(labels), 2, 2, 1), np.uint8), labels
    names = tuple("0123456789")
    for fraction in (0.2, 0.5):
        config.dataset.test_fraction = fraction
        (images, left), _ = datasets._split(Path("mine"), part, names, fraction)
        assert distil._left(labels, True, config) == len(left)
    config.dataset.validation = 0.1
    (_, less), _ = datasets._split(Path("mine"), (images, left), names, 0.1)
    assert distil._left(labels, True, config) == len(less)


def test_the_default_batch_follows_the_fields(arrays):
    few = {"num_steps": 1, "eval.steps": (0,), "report.num_train": 0}
    images, labels = arrays
    few |= {"dataset.test_fraction": 0.6}
    found = kip_flax.distill(images[:100], labels[:100], fields=few)
    assert found.provenance["config"]["batch_size"] == 40


def test_a_run_keeps_the_images_that_it_was_made_from(arrays, tmp_path):
    images, labels = arrays
    kip_flax.distill(images, labels, fields=FEW, workdir=str(tmp_path))
    before = (tmp_path / "images.npz").read_bytes()
    with pytest.raises(UserError, match=r"images\.npz holds other images or labels"):
        kip_flax.distill(255 - images, labels, fields=FEW, workdir=str(tmp_path))
    assert (tmp_path / "images.npz").read_bytes() == before
    kip_flax.distill(images, labels, fields=FEW | {"num_steps": 4}, workdir=str(tmp_path))


def test_after_arrays_that_are_refused_others_may_be_given(arrays, tmp_path):
    images, labels = arrays
    with pytest.raises(UserError, match=r"take images\.astype\(np\.uint8\)"):
        kip_flax.distill(images.astype(int), labels, fields=FEW, workdir=str(tmp_path))
    with pytest.raises(UserError, match="number the classes from 0 without gaps"):
        kip_flax.distill(images, labels + 10**6, fields=FEW, workdir=str(tmp_path))
    kip_flax.distill(images, labels, fields=FEW, workdir=str(tmp_path))
    kip_flax.distill(images, labels.astype(np.int16), fields=FEW, workdir=str(tmp_path))


def test_after_a_stop_before_the_first_step_others_may_be_given(arrays, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    images, labels = arrays
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_and_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            kip_flax.distill(255 - images, labels, fields=FEW, workdir=str(tmp_path))
    kip_flax.distill(images, labels, fields=FEW, workdir=str(tmp_path))


def test_a_file_of_someone_else_is_not_replaced(arrays, tmp_path):
    np.savez(tmp_path / "images.npz", photographs=np.arange(3))
    with pytest.raises(UserError, match=r"images\.npz holds other images or labels"):
        kip_flax.distill(*arrays, fields=FEW, workdir=str(tmp_path))
    assert np.load(tmp_path / "images.npz").files == ["photographs"]


def test_a_stopped_run_is_no_set_and_goes_on(tmp_path, capsys, monkeypatch):
    def progress(console, text, *figures):
        if text.startswith("step 1/3"):
            os.kill(os.getpid(), signal.SIGINT)

    arguments = {"config": kip_digits.get_config(), "workdir": str(tmp_path)}
    fields = FEW | {"log.every_steps": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Console, "progress", progress)
        with pytest.raises(KeyboardInterrupt, match="stopped before its last step"):
            kip_flax.distill(**arguments, fields=fields)
    kip_flax.distill(**arguments, fields=fields)
    assert "going on from the checkpoint of step" in capsys.readouterr().out


def test_a_signal_while_a_limit_of_time_is_laid_out_is_a_stop_like_any(tmp_path, monkeypatch):
    def stopped(*_):
        raise Stopped

    monkeypatch.setattr(length, "forecast", stopped)
    fields = FEW | {"optimizer.schedule": "cosine", "time_limit": 1.0}
    with pytest.raises(KeyboardInterrupt, match="stopped before its first step"):
        kip_flax.distill(config=kip_digits.get_config(), fields=fields, workdir=str(tmp_path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to distil: give images and labels, or a config"),
        ({"images": np.zeros((4, 8, 8), np.uint8)}, "images and labels go together"),
        (
            {"images": np.zeros((4, 8, 8)), "labels": [0, 1, 0, 1]},
            r"holds images of float64 \(4, 8, 8\): uint8 \(n, H, W\)",
        ),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": [0, 1, 0]},
            r"holds labels of int64 \(3,\) for 4 images",
        ),
        (
            {"config": kip_digits.get_config(), "fields": {"steps": 3}},
            "fields: there is no 'steps'",
        ),
        (
            {
                "images": np.zeros((4, 8, 8), np.uint8),
                "labels": [0, 1, 0, 1],
                "test": (np.zeros((1, 8, 8), np.uint8), ["0"]),
            },
            "labels are names in one part and numbers in the other",
        ),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array(["a", None], object)},
            "labels are names and numbers, or some are missing",
        ),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": [b"\xe4", b"b"]},
            "labels are neither numbers nor names",
        ),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": np.array([1, None], object)},
            "labels are names and numbers, or some are missing",
        ),
        (
            {"images": [np.zeros((8, 8)), np.zeros((6, 8))], "labels": [0, 1]},
            "images are no array: give images of one size",
        ),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.eye(4)},
            r"labels have the shape \(4, 4\): give one for each image .*labels\.argmax\(1\)",
        ),
        (
            {"images": np.zeros((4, 8, 8), int), "labels": [0, 1, 0, 1]},
            r"is expected, take images\.astype\(np\.uint8\)",
        ),
        (
            {"images": np.zeros((4, 8, 8), np.uint8), "labels": [0, 1, 0, 9 * 10**8]},
            "labels up to 900000000 for 4 images: number the classes from 0 without gaps",
        ),
        (
            {"images": np.zeros((2, 8, 8), np.uint8), "labels": [0, 1], "test": (np.zeros(1),)},
            "test is no pair",
        ),
        ({"config": "configs/kip_digits.py"}, "config is a str: give a ConfigDict"),
        ({"config": kip_digits.get_config(), "fields": {"num_steps": "x"}}, "fields: .*"),
        ({"config": kip_digits.get_config(), "fields": {"num_steps": -1}}, "num_steps is -1"),
        (
            {"images": np.zeros((6, 8, 8), np.uint8), "labels": [1, 2, 3, 1, 2, 3]},
            "has no training image of class 0: classes are numbered from 0 without gaps",
        ),
    ],
)
def test_mistakes_are_one_line(given, message):
    with pytest.raises(UserError, match=message) as caught:
        kip_flax.distill(**given)
    assert "\n" not in str(caught.value)


def test_the_defaults_fit_the_classes_that_are_chosen(arrays, monkeypatch):
    found = []
    monkeypatch.setattr(train, "train_and_evaluate", lambda config, *_: found.append(config))
    for classes, chosen in (((), range(10)), ((3, 5, 8), (3, 5, 8))):
        with contextlib.suppress(UserError):  # There is no result.
            kip_flax.distill(*arrays, fields={"dataset.classes": classes})
        count = sum(np.isin(arrays[1], chosen))
        assert found[-1].support.size == len(chosen)
        assert 0.7 * count < found[-1].batch_size < 0.9 * count  # A fifth is held out.


def test_fields_may_be_numbers_of_numpy(arrays, monkeypatch):
    found = []
    monkeypatch.setattr(train, "train_and_evaluate", lambda config, *_: found.append(config))
    with contextlib.suppress(UserError):
        kip_flax.distill(*arrays, fields={"num_steps": np.int64(7)})
    assert found[-1].num_steps == 7


def test_a_field_that_follows_another_follows_it_here_too(monkeypatch):
    seen = []

    def stop(config, *_):
        seen.append(config.kernel.mirrored)
        raise UserError("seen")

    monkeypatch.setattr(train, "train_and_evaluate", stop)
    for flip in (True, False):
        with pytest.raises(UserError, match="seen"):
            kip_flax.distill(config=frepo_cifar10.get_config(), fields={"frepo.flip": flip})
    assert seen == [True, False]


def test_without_the_repository_a_configuration_is_asked_for(arrays, monkeypatch):
    monkeypatch.setattr(distil, "_DEFAULT", "configs.there_is_none")
    with pytest.raises(UserError, match=r"no configs/default.py here.*give a config"):
        kip_flax.distill(*arrays)


@pytest.mark.parametrize(
    ("default", "message"),
    [
        (lambda: {}["model"], r"configs/default\.py here fails \(KeyError\('model'\)\): give a"),
        (lambda: importlib.import_module("no_such_module"), r"here fails \(ModuleNotFoundError"),
        (
            lambda: ConfigDict({"seed": 1}),
            r"is not that of kip_flax .* \(it lacks algorithm\)",
        ),
    ],
)
def test_another_projects_configuration_is_not_taken(arrays, monkeypatch, default, message):
    module = types.ModuleType("configs.default")
    module.get_config = default
    monkeypatch.setitem(sys.modules, "configs.default", module)
    with pytest.raises(UserError, match=message):
        kip_flax.distill(*arrays)
