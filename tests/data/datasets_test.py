"""Data sets by name, and the split of those without a test part."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest
from dataset_checks import fails

from kip_flax.data import DATASETS, datasets, hold_out, load_dataset, of_classes
from kip_flax.data.source import Source
from kip_flax.runtime.errors import UserError


def test_unknown_name_and_missing_folder(tmp_path):
    fails("'cifar'", *DATASETS, name="cifar")
    fails("dataset.data_dir", name="mnist")
    fails(str(tmp_path / "mnist"), "train-images-idx3-ubyte", name="mnist", data_dir=tmp_path)
    fails("not a folder", name="folder", data_dir=tmp_path / "none")
    fails("test_fraction", name="digits", test_fraction=1.0)


def test_validation_images_come_out_of_the_training_set_and_hide_the_test_set():
    whole = load_dataset("digits")
    data = hold_out(whole, 0.1)
    assert (whole.split, data.split) == ("test", "validation")
    both = np.concatenate([data.train_images, data.test_images]).reshape(-1, 64)
    expected = whole.train_images.reshape(-1, 64)
    np.testing.assert_array_equal(both[np.lexsort(both.T)], expected[np.lexsort(expected.T)])
    share = np.bincount(data.test_labels) / np.bincount(whole.train_labels)
    np.testing.assert_allclose(share, 0.1, atol=0.005)
    np.testing.assert_array_equal(hold_out(whole, 0.1).test_labels, data.test_labels)


@pytest.mark.parametrize("classes", [(3, 5), ("5", "3", "0"), (9, "1")])
def test_some_classes_alone_in_the_order_given(classes):
    whole = load_dataset("digits")
    data = of_classes(whole, classes)
    assert data.class_names == tuple(str(one) for one in classes)
    assert data.title == f"digits ({', '.join(data.class_names)})"
    for part in ("train", "test"):
        labels, every = getattr(data, f"{part}_labels"), getattr(whole, f"{part}_labels")
        wanted = [int(one) for one in classes]
        rows = np.isin(every, wanted)
        np.testing.assert_array_equal(np.array(wanted)[labels], every[rows])
        images = getattr(whole, f"{part}_images")[rows]
        np.testing.assert_array_equal(getattr(data, f"{part}_images"), images)
    assert hold_out(data, 0.1).class_names == data.class_names


def test_an_integer_is_a_number_and_a_text_a_name():
    """The class folders '1', '10' and '2' are numbered 0, 1 and 2."""
    names = ("1", "10", "2", *"abcdefg")
    whole = dataclasses.replace(load_dataset("digits"), class_names=names)
    assert of_classes(whole, (0, 2)).class_names == ("1", "2")
    assert of_classes(whole, (1, "1")).class_names == ("10", "1")
    assert of_classes(whole, ("2", "10")).class_names == ("2", "10")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((3, 10), r"names 10: digits has the classes 0, 1, .*, or 0 to 9"),
        (("three", 1), r"names 'three': digits has the classes"),
        ((3, "3"), r"names a class twice"),
    ],
)
def test_classes_that_are_not_there_are_reported(classes, message):
    with pytest.raises(UserError, match=message):
        of_classes(load_dataset("digits"), classes)


def test_a_name_with_a_line_break_is_refused(tmp_path):
    """Tables, cards and drawings have a name in one line."""
    images, labels = np.zeros((8, 2, 2, 1), np.uint8), np.arange(8) % 2
    path = tmp_path / "mine.npz"
    np.savez(path, images=images, labels=labels, class_names=["left\nhand", "right"])
    with pytest.raises(UserError, match=r"the class 'left\\nhand': take the line break out"):
        load_dataset("npz", str(path))


@pytest.mark.parametrize(
    "images", [np.zeros((4, 8, 8, 1), np.float32), np.zeros((4, 8, 3), np.uint8)]
)
def test_images_of_a_module_of_ones_own_are_bytes(images, monkeypatch):
    """Floats would be taken for pixels of another scale."""
    labels = np.array([0, 1, 0, 1])
    source = Source((Path("a"), Path("b")), (images, labels), (images, labels), ("x", "y"))
    own = types.SimpleNamespace(NEEDS_FILES=False, read=lambda *_: source)
    monkeypatch.setattr(datasets.sets, "find", lambda name: own)
    with pytest.raises(UserError, match=r"a has images of type .*: uint8 \(n, height, width"):
        load_dataset("mine")
