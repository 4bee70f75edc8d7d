"""Data sets as a whole: digits, the user's own, the split, the balanced draw."""

from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from kip_flax.data import DATASETS, balanced_batch, balanced_draw, hold_out, load_dataset
from kip_flax.runtime.errors import UserError

RNG = np.random.default_rng(0)


def fails(*words: str, name: str, data_dir: Path | str = "", **options: float) -> None:
    """Asserts that loading fails with one line that holds all `words`."""
    with pytest.raises(UserError) as caught:
        load_dataset(name, str(data_dir), **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_unknown_name_and_missing_folder(tmp_path):
    fails("'cifar'", *DATASETS, name="cifar")
    fails("dataset.data_dir", name="mnist")
    fails(str(tmp_path / "mnist"), "train-images-idx3-ubyte", name="mnist", data_dir=tmp_path)
    fails("not a folder", name="folder", data_dir=tmp_path / "none")
    fails("test_fraction", name="digits", test_fraction=1.0)


def test_digits_are_those_of_scikit_learn():
    data = load_dataset("digits", test_fraction=0.2)
    source = sklearn.datasets.load_digits()
    assert data.image_shape == (8, 8, 1)
    assert data.num_classes == 10
    assert data.train_images.dtype == np.uint8
    assert data.train_labels.dtype == np.int32
    # Nothing is lost and nothing is in both parts: together they are the source, 16 -> 255.
    both = np.concatenate([data.train_images, data.test_images])[..., 0].reshape(-1, 64)
    expected = np.floor(source.images * 255 / 16 + 0.5).reshape(-1, 64)
    np.testing.assert_array_equal(
        both[np.lexsort(both.T)], expected[np.lexsort(expected.T)].astype(np.uint8)
    )
    held_out = np.bincount(data.test_labels) / np.bincount(source.target)
    np.testing.assert_allclose(held_out, 0.2, atol=0.003)
    again = load_dataset("digits", test_fraction=0.2)
    np.testing.assert_array_equal(again.test_images, data.test_images)


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


def write_pictures(root: Path, count: int = 5) -> None:
    for name, colour in (("cats", (255, 0, 0)), ("dogs", (0, 0, 255))):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (10, 12), colour).save(root / name / f"{i}.png")


def test_folder_is_split_by_class(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "cats" / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden").mkdir()
    data = load_dataset("folder", str(tmp_path), image_size=6, test_fraction=0.4)
    assert data.class_names == ("cats", "dogs")
    assert data.image_shape == (6, 6, 3)
    np.testing.assert_array_equal(np.bincount(data.train_labels), [3, 3])
    np.testing.assert_array_equal(np.bincount(data.test_labels), [2, 2])
    np.testing.assert_array_equal(data.test_images[data.test_labels == 0][0, 3, 3], [255, 0, 0])
    np.testing.assert_array_equal(data.train_images[data.train_labels == 1][0, 0, 0], [0, 0, 255])


def test_folder_with_train_and_test(tmp_path):
    write_pictures(tmp_path / "train", 3)
    write_pictures(tmp_path / "test", 1)
    data = load_dataset("folder", str(tmp_path), image_size=4)
    assert (len(data.train_images), len(data.test_images)) == (6, 2)
    (tmp_path / "test" / "birds").mkdir()
    fails("differ", "train", "test", name="folder", data_dir=tmp_path)


def test_pictures_of_any_mode_are_cropped_to_the_centre(tmp_path):
    # 12 wide, 6 high: the middle 6 columns are white, what is cropped away is black.
    white = np.zeros((6, 12), np.uint8)
    white[:, 3:9] = 255
    grey = Image.fromarray(white)
    write_pictures(tmp_path, 2)
    (tmp_path / "modes").mkdir()
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK"):
        suffix = "tif" if mode == "CMYK" else "png"
        grey.convert("RGB").convert(mode).save(tmp_path / "modes" / f"{mode}.{suffix}")
    Image.fromarray(white.astype(np.uint16) * 257).save(tmp_path / "modes" / "sixteen.png")
    data = load_dataset("folder", str(tmp_path), image_size=6)
    images = np.concatenate([data.train_images, data.test_images])
    modes = images[np.concatenate([data.train_labels, data.test_labels]) == 2]
    assert modes.shape == (8, 6, 6, 3)
    np.testing.assert_array_equal(modes, 255)


def test_sixteen_bit_grey_is_scaled(tmp_path):
    write_pictures(tmp_path, 2)
    for i in range(2):
        picture = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
        picture.save(tmp_path / "cats" / f"{i}.png")
    data = load_dataset("folder", str(tmp_path), image_size=4)
    np.testing.assert_array_equal(data.train_images[data.train_labels == 0], 128)


def test_bad_folders(tmp_path):
    (tmp_path / "only").mkdir()
    fails("class folders", str(tmp_path), name="folder", data_dir=tmp_path)
    write_pictures(tmp_path)
    fails("no picture", "only", name="folder", data_dir=tmp_path)
    (tmp_path / "only" / "bad.png").write_bytes((tmp_path / "cats" / "0.png").read_bytes()[:50])
    fails("bad.png", "picture", name="folder", data_dir=tmp_path)
    Image.new("L", (4, 4)).save(tmp_path / "only" / "bad.png")
    fails("one image", name="folder", data_dir=tmp_path)


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


def test_npz_with_one_part_is_split(tmp_path):
    np.savez(tmp_path / "mine.npz", images=IMAGES[..., 0], labels=LABELS)
    data = load_dataset("npz", str(tmp_path), test_fraction=0.25)
    assert data.image_shape == (5, 4, 1)
    assert data.class_names == ("0", "1", "2")
    np.testing.assert_array_equal(np.bincount(data.test_labels), [1, 1, 1])
    np.testing.assert_array_equal(np.bincount(data.train_labels), [3, 3, 3])


BROKEN_NPZ = {
    "keys": {"pictures": IMAGES},
    "float": {"images": IMAGES / 255, "labels": LABELS},
    "axes": {"images": IMAGES[0, 0], "labels": LABELS[:4]},
    "channels": {"images": IMAGES[..., :2], "labels": LABELS},
    "count": {"images": IMAGES, "labels": LABELS[:5]},
    "float labels": {"images": IMAGES, "labels": LABELS.astype(float)},
    "negative": {"images": IMAGES, "labels": LABELS - 1},
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


def test_balanced_draw_is_even_and_without_replacement():
    labels = RNG.permutation(np.repeat(np.arange(4), 50))
    draw = balanced_draw(labels, 42, 4, jax.random.key(0))
    assert draw.dtype == np.int64
    assert len(set(draw.tolist())) == 42
    np.testing.assert_array_equal(np.sort(np.bincount(labels[draw])), [10, 10, 11, 11])
    # Shuffled: the classes do not come one after the other.
    assert np.count_nonzero(np.diff(labels[draw])) > 10


def test_batches_of_a_pass_share_no_image_and_are_even():
    labels = RNG.permutation(np.repeat(np.arange(4), (30, 25, 40, 25)))  # 100 are even.
    key = jax.random.key(0)
    batches = [balanced_batch(labels, 32, 4, key, number) for number in range(1, 7)]
    for first in (0, 3):  # Three batches a pass.
        taken = np.concatenate(batches[first : first + 3])
        assert len(set(taken.tolist())) == 96
        for batch in batches[first : first + 3]:
            np.testing.assert_array_equal(np.bincount(labels[batch]), [8, 8, 8, 8])
    assert len(np.intersect1d(batches[0], batches[3])) < 20  # 9 are expected.
    np.testing.assert_array_equal(batches[4], balanced_batch(labels, 32, 4, key, 5))
    whole = balanced_batch(labels, 120, 4, key, 2)  # More than is even: a pass is one batch.
    np.testing.assert_array_equal(np.sort(whole), np.arange(120))


def test_balanced_draw_follows_from_the_key():
    labels = np.arange(1000) % 10
    draws = [balanced_draw(labels, 100, 10, jax.random.key(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert len(np.intersect1d(draws[0], draws[2])) < 40  # 10 are expected
    old_style = balanced_draw(labels, 100, 10, jax.random.PRNGKey(3))
    np.testing.assert_array_equal(old_style, draws[0])


def test_balanced_draw_gives_the_remainder_to_random_classes():
    labels = np.arange(100) % 10
    counts = np.zeros(10)
    for seed in range(100):
        draw = balanced_draw(labels, 13, 10, jax.random.key(seed))
        counts += np.bincount(labels[draw], minlength=10) - 1
    assert counts.sum() == 300
    assert counts.min() > 15  # 30 are expected, 4.6 standard deviations at most away
    assert counts.max() < 51


def test_balanced_draw_fills_up_from_the_other_classes():
    labels = np.array([0] * 2 + [1] * 20 + [2] * 20)
    draw = balanced_draw(labels, 30, 3, jax.random.key(0))
    np.testing.assert_array_equal(np.bincount(labels[draw]), [2, 14, 14])
    everything = balanced_draw(labels, 42, 3, jax.random.key(0))
    np.testing.assert_array_equal(np.sort(everything), np.arange(42))


@pytest.mark.parametrize("size", [0, 43])
def test_balanced_draw_of_an_impossible_size(size):
    with pytest.raises(UserError, match=rf"{size} images .* between 1 and 42"):
        balanced_draw(np.zeros(42, np.int32), size, 1, jax.random.key(0))
