"""MNIST and Fashion-MNIST from small files as their publishers write them, whole and broken."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from dataset_checks import fails

from kip_flax.data import load_dataset

RNG = np.random.default_rng(0)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, zipped: bool = True) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    arrays = {}
    for part, count in (("train", 20), ("t10k", 10)):
        arrays[f"{part}-images-idx3-ubyte"] = RNG.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(count, dtype=np.uint8) % 10
    for name, array in arrays.items():
        content = gzip.compress(idx(array)) if zipped else idx(array)
        (folder / (name + ".gz" * zipped)).write_bytes(content)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "folder"),
    [("mnist", "mnist"), ("fashion_mnist", "fashion-mnist"), ("fashion_mnist", "fashion_mnist")],
)
def test_idx(tmp_path, name, folder, zipped):
    arrays = write_mnist(tmp_path / folder, zipped)
    for data_dir in (tmp_path, tmp_path / folder):
        data = load_dataset(name, str(data_dir))
        expected = arrays["train-images-idx3-ubyte"]
        np.testing.assert_array_equal(data.train_images, expected[:, :, :, None])
        np.testing.assert_array_equal(data.test_labels, np.arange(10))
        assert data.image_shape == (28, 28, 1)
    assert data.class_names[9] == ("9" if name == "mnist" else "Ankle boot")


def test_a_folder_of_its_name_comes_before_files_that_lie_loose(tmp_path):
    """The names of the files are the same."""
    loose = write_mnist(tmp_path / "all")
    own = write_mnist(tmp_path / "all" / "fashion-mnist")
    key = "train-images-idx3-ubyte"
    for name, arrays in (("fashion_mnist", own), ("mnist", loose)):
        found = load_dataset(name, str(tmp_path / "all")).train_images
        np.testing.assert_array_equal(found[..., 0], arrays[key])


BROKEN_IDX = {
    "truncated gzip": ("train-images-idx3-ubyte", lambda raw: gzip.compress(raw)[:-100]),
    "damaged gzip": ("train-images-idx3-ubyte", lambda raw: b"\x1f\x8b" + b"x" * 100),
    "truncated": ("train-images-idx3-ubyte", lambda raw: raw[:-1]),
    "too long": ("t10k-images-idx3-ubyte", lambda raw: raw + b"x"),
    "empty": ("train-labels-idx1-ubyte", lambda raw: b""),
    "magic": ("t10k-images-idx3-ubyte", lambda raw: b"\x00\x00\x0d\x03" + raw[4:]),
    "labels for images": (
        "t10k-images-idx3-ubyte",
        lambda raw: idx(np.zeros(10, np.uint8)),
    ),
    "label": ("train-labels-idx1-ubyte", lambda raw: raw[:-1] + b"\x0a"),
    "count": ("t10k-labels-idx1-ubyte", lambda raw: idx(np.zeros(9, np.uint8))),
}


@pytest.mark.parametrize("case", BROKEN_IDX)
def test_broken_idx_names_the_file(tmp_path, case):
    arrays = write_mnist(tmp_path / "mnist", zipped=False)
    name, breaks = BROKEN_IDX[case]
    (tmp_path / "mnist" / name).write_bytes(breaks(idx(arrays[name])))
    fails(name, name="mnist", data_dir=tmp_path)


def test_one_idx_file_missing_or_of_another_size(tmp_path):
    write_mnist(tmp_path / "mnist")
    images = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    images.write_bytes(gzip.compress(idx(np.zeros((10, 27, 28), np.uint8))))
    fails("(28, 28, 1)", "(27, 28, 1)", name="mnist", data_dir=tmp_path)
    images.unlink()
    fails("lacks t10k-images-idx3-ubyte", name="mnist", data_dir=tmp_path)
