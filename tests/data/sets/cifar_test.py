"""CIFAR-10 and CIFAR-100 from small batches as they are published, whole, broken and hostile."""

import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from dataset_checks import fails

from kip_flax.data import load_dataset, sets
from kip_flax.data.sets import cifar

RNG = np.random.default_rng(0)


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


def test_a_jpeg_copy_of_cifar10_is_noted(tmp_path, monkeypatch):
    (tmp_path / "data_batch_1").write_bytes(b"other pixels")
    for data_dir in (tmp_path, tmp_path.parent):
        note = sets.data_note("cifar10", str(data_dir))
        assert ("JPEG copy" in note) == (data_dir == tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (tmp_path / "data_batch_1").rename(folder / "data_batch_1")
    assert "JPEG copy" in sets.data_note("cifar10", str(tmp_path))
    assert sets.data_note("cifar100", str(tmp_path)) == ""
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert "JPEG copy" in sets.data_note("cifar10", f"~/{tmp_path.name}")


def test_the_publishers_own_files_are_not(tmp_path, monkeypatch):
    (tmp_path / "data_batch_1").write_bytes(b"the publisher's")
    md5 = hashlib.md5(b"the publisher's", usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar, "_MD5", md5)
    assert sets.data_note("cifar10", str(tmp_path)) == ""
