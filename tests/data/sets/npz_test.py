"""A user's own arrays, whole and broken."""

import numpy as np
import pytest
from dataset_checks import fails

from kip_flax.data import hold_out, load_dataset

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 5, 4, 3), np.uint8)
LABELS = np.arange(12) % 3


def test_npz_with_both_parts(tmp_path):
    path = tmp_path / "mine.npz"
    parts = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES[:3]}
    np.savez(path, **parts, test_labels=LABELS[:3, None], class_names=["a", "b", "c"])
    for data_dir in (tmp_path, path):
        data = load_dataset("npz", str(data_dir))
        np.testing.assert_array_equal(data.train_images, IMAGES)
        np.testing.assert_array_equal(data.test_labels, [0, 1, 2])
        assert data.class_names == ("a", "b", "c")


def test_names_may_be_bytes(tmp_path):
    names = ["Käse", "b", "c"]
    encoded = [name.encode() for name in names]
    np.savez(tmp_path / "mine.npz", images=IMAGES, labels=LABELS, class_names=encoded)
    assert load_dataset("npz", str(tmp_path)).class_names == tuple(names)


def test_npz_with_one_part_is_split(tmp_path):
    np.savez(tmp_path / "mine.npz", images=IMAGES[..., 0], labels=LABELS)
    data = load_dataset("npz", str(tmp_path), test_fraction=0.25)
    assert data.image_shape == (5, 4, 1)
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(np.bincount(data.test_labels), [1, 1, 1])
    np.testing.assert_array_equal(np.bincount(data.train_labels), [3, 3, 3])


def test_what_is_not_known_may_be_mirrored_if_it_is_in_colour(tmp_path):
    for name, images in (("colour", IMAGES), ("grey", IMAGES[..., :1])):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=LABELS)
        found = load_dataset("npz", str(tmp_path / f"{name}.npz"))
        assert found.mirrorable == hold_out(found, 0.5).mirrorable == (name == "colour")


BROKEN_NPZ = {
    "keys": {"pictures": IMAGES},
    "float": {"images": IMAGES / 255, "labels": LABELS},
    "axes": {"images": IMAGES[0, 0], "labels": LABELS[:4]},
    "channels": {"images": IMAGES[..., :2], "labels": LABELS},
    "count": {"images": IMAGES, "labels": LABELS[:5]},
    "float labels": {"images": IMAGES, "labels": LABELS.astype(float)},
    "negative": {"images": IMAGES, "labels": LABELS - 1},
    "two of one name": {"images": IMAGES, "labels": LABELS, "class_names": ["a", "b", "a"]},
    "names in latin1": {"images": IMAGES, "labels": LABELS, "class_names": [b"\xe4", b"b", b"c"]},
    "few names": {"images": IMAGES, "labels": LABELS, "class_names": ["a", "b"]},
    "pickle": {"images": IMAGES.astype(object), "labels": LABELS},
    "none": {"images": IMAGES[:0], "labels": LABELS[:0]},
}


@pytest.mark.parametrize("case", BROKEN_NPZ)
def test_broken_npz_names_the_file(tmp_path, case):
    np.savez(tmp_path / "mine.npz", **BROKEN_NPZ[case])
    fails("mine.npz", name="npz", data_dir=tmp_path)


def test_npz_that_is_not_one_file(tmp_path):
    fails("exactly one", name="npz", data_dir=tmp_path)
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    fails("exactly one", name="npz", data_dir=tmp_path)
    fails("b.npz", name="npz", data_dir=tmp_path / "b.npz")
