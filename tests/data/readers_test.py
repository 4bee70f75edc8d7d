"""Every publisher's format, on small files as they write them, whole and broken."""

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from kip_flax.data import load_dataset
from kip_flax.runtime.errors import UserError

RNG = np.random.default_rng(0)


def fails(*words: str, name: str, data_dir: Path) -> None:
    """Asserts that loading fails with one line that holds all `words`."""
    with pytest.raises(UserError) as caught:
        load_dataset(name, str(data_dir))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


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


def python2_string(value: bytes) -> bytes:
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value


def python2_batch(rows: np.ndarray, labels: list[int]) -> bytes:
    """The bytes that Python 2 and its NumPy wrote with protocol 2, as published."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + (b"(K\x01" + struct.pack("<cicicc", b"J", rows.shape[0], b"J", 3072, b"\x86", b"c"))
        + (b"numpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2)
        + (b"K\x00tb\x89" + python2_string(rows.tobytes()) + b"tb")
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    items = python2_string(b"data") + array + python2_string(b"labels") + numbers
    return b"\x80\x02}(" + items + b"u."


def python3_batch(rows: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({b"data": rows, b"labels": labels}, protocol=2)


def numpy1_batch(rows: np.ndarray, labels: list[int]) -> bytes:
    return python3_batch(rows, labels).replace(b"numpy._core", b"numpy.core")


def text_keys_batch(rows: np.ndarray, labels: list[int]) -> bytes:
    return pickle.dumps({"data": np.asfortranarray(rows), "labels": labels}, protocol=4)


def write_cifar10(folder: Path, batch=python3_batch) -> list[np.ndarray]:
    folder.mkdir()
    images = RNG.integers(0, 256, (6, 10, 32, 32, 3), np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, part in zip(names, images, strict=True):
        rows = np.ascontiguousarray(part.transpose(0, 3, 1, 2)).reshape(10, 3072)
        (folder / name).write_bytes(batch(rows, list(range(10))))
    meta = {b"label_names": [f"name{i}".encode() for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return list(images)


@pytest.mark.parametrize("batch", [python2_batch, python3_batch, numpy1_batch, text_keys_batch])
def test_cifar10(tmp_path, batch):
    images = write_cifar10(tmp_path / "cifar-10-batches-py", batch)
    for data_dir in (tmp_path, tmp_path / "cifar-10-batches-py"):
        data = load_dataset("cifar10", str(data_dir))
        np.testing.assert_array_equal(data.train_images, np.concatenate(images[:5]))
        np.testing.assert_array_equal(data.test_images, images[5])
        np.testing.assert_array_equal(data.train_labels, np.tile(np.arange(10), 5))
        assert data.class_names == tuple(f"name{i}" for i in range(10))


def test_cifar100_takes_the_fine_labels(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows = RNG.integers(0, 256, (100, 3072), np.uint8)
    batch = {b"data": rows, b"coarse_labels": [0] * 100, b"fine_labels": list(range(100))}
    for name in ("train", "test"):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [f"fine{i}".encode() for i in range(100)]
    meta = {b"fine_label_names": names, b"coarse_label_names": [b"coarse"] * 20}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    data = load_dataset("cifar100", str(tmp_path))
    np.testing.assert_array_equal(data.test_labels, np.arange(100))
    assert data.class_names[99] == "fine99"
    assert data.train_images[3, 1, 2, 1] == rows[3, 1024 + 32 + 2]


class Creates:
    """What an attacker pickles: unpickled by `pickle.load`, it runs a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_a_pickle_cannot_run_anything(tmp_path, name):
    folder, target = tmp_path / "cifar-10-batches-py", tmp_path / "made by the pickle"
    write_cifar10(folder)
    attack = pickle.dumps({b"data": Creates(target), b"labels": []}, protocol=2)
    (folder / name).write_bytes(attack)
    fails(name, "mkdir", "refused", name="cifar10", data_dir=tmp_path)
    assert not target.exists()
    pickle.loads(attack)  # the attack itself is sound
    assert target.is_dir()


@pytest.mark.parametrize(
    "attack",
    [b"cbuiltins\neval\n(U\x011tR.", b"cnumpy\nload\n(U\x01xtR.", b"c_codecs\ndecode\n."],
)
def test_a_pickle_gets_no_other_name(tmp_path, attack):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"\x80\x02" + attack)
    fails("test_batch", "refused", name="cifar10", data_dir=tmp_path)


ROWS = np.zeros((10, 3072), np.uint8)
BROKEN_CIFAR = {
    "truncated": python3_batch(ROWS, list(range(10)))[:-500],
    "empty": b"",
    "no pickle": b"<html>not found</html>",
    "label": python3_batch(ROWS, [*range(9), 10]),
    "count": python3_batch(ROWS, list(range(9))),
    "row length": python3_batch(ROWS[:, :3000], list(range(10))),
    "dtype": python3_batch(ROWS.astype(np.float32), list(range(10))),
    "objects": python3_batch(ROWS.astype(object), list(range(10))),
    "keys": pickle.dumps({b"data": ROWS, b"fine_labels": [0] * 10}, protocol=2),
    "shape": python2_batch(ROWS, list(range(10))).replace(b"J\x0a", b"J\x0b"),
}


@pytest.mark.parametrize("case", BROKEN_CIFAR)
def test_broken_cifar_names_the_file(tmp_path, case):
    write_cifar10(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(BROKEN_CIFAR[case])
    fails("data_batch_2", name="cifar10", data_dir=tmp_path)


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
