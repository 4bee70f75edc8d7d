"""SVHN from small MATLAB files as they are published, whole and broken."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from dataset_checks import fails

from kip_flax.data import load_dataset

RNG = np.random.default_rng(0)


def write_svhn(folder: Path, **changes: np.ndarray) -> np.ndarray:
    images = RNG.integers(0, 256, (32, 32, 3, 10), np.uint8)
    labels = np.arange(1, 11, dtype=np.uint8)[:, None]
    for name in ("train_32x32.mat", "test_32x32.mat"):
        content = {"X": images, "y": labels} | (changes if name.startswith("test") else {})
        scipy.io.savemat(folder / name, content, do_compression=True)
    return images


def test_svhn(tmp_path):
    images = write_svhn(tmp_path)
    data = load_dataset("svhn", str(tmp_path))
    np.testing.assert_array_equal(data.train_images[7], images[..., 7])
    np.testing.assert_array_equal(data.test_labels, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0])


@pytest.mark.parametrize(
    "changes",
    [
        {"X": np.zeros((32, 31, 3, 10), np.uint8)},
        {"X": np.zeros((32, 32, 3, 10))},
        {"y": np.arange(10, dtype=np.uint8)[:, None]},
        {"y": np.arange(2, 12, dtype=np.uint8)[:, None]},
        {"y": np.ones((9, 1), np.uint8)},
    ],
)
def test_wrong_svhn_names_the_file(tmp_path, changes):
    write_svhn(tmp_path, **changes)
    fails("test_32x32.mat", name="svhn", data_dir=tmp_path)


def test_truncated_and_foreign_mat(tmp_path):
    write_svhn(tmp_path)
    path = tmp_path / "test_32x32.mat"
    for content in (path.read_bytes()[:2000], b"", b"x" * 500):
        path.write_bytes(content)
        fails("test_32x32.mat", name="svhn", data_dir=tmp_path)
