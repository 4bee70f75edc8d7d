"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): the publisher's pickled batches for Python."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kip_flax.data import readers
from kip_flax.data.source import Facts, Source


class _Files(NamedTuple):
    """The folder and files of a data set; keys of labels and class names begin with `prefix`."""

    folder: str
    train: Sequence[str]
    test: str
    meta: str
    prefix: str


_FILES = {
    "cifar10": _Files(
        "cifar-10-batches-py",
        [f"data_batch_{number}" for number in range(1, 6)],
        "test_batch",
        "batches.meta",
        "",
    ),
    "cifar100": _Files("cifar-100-python", ["train"], "test", "meta", "fine_"),
}
NAMES = tuple(_FILES)
# VICO-UoE/DatasetCondensation, utils.py (get_dataset); MTT and DD-Ranking have the same. They are
# not the deviations of the pixels (0.247, 0.243, 0.262), but those by which the evaluators divide.
# For CIFAR-100 the newest DatasetCondensation has others; MTT and DD-Ranking have these.
_MOMENTS = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FACTS = {
    "cifar10": Facts("CIFAR10", _MOMENTS, mirrorable=True),
    "cifar100": Facts("CIFAR100", _MOMENTS, mirrorable=True),
}
# Checksum of the first training batch of CIFAR-10, as its publisher provides it.
_MD5 = "c99cafc152244af753f735de768cd75f"


def read(name: str, root: Path, image_size: int) -> Source:
    """Images uint8 (32, 32, 3) of the batches in `root`, or in its folder of the usual name."""
    folder, train, test, meta, prefix = _FILES[name]
    *train_paths, test_path, meta_path = readers.find(root, (folder,), (*train, test, meta))
    names = readers.read_cifar_names(meta_path, f"{prefix}label_names")
    batches = []
    for path in (*train_paths, test_path):
        images, labels = readers.read_cifar(path, f"{prefix}labels")
        readers.check_labels(path, labels, len(images), 0, len(names) - 1)
        batches.append((images, labels))
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:-1], strict=True))
    return Source((train_paths[0], test_path), (images, labels), batches[-1], names)


def data_note(name: str, root: Path) -> str:
    """A note if the first batch of CIFAR-10 has another checksum than the publisher's; or ''."""
    if name != "cifar10":
        return ""
    files = _FILES[name]
    for path in (root / files.train[0], root / files.folder / files.train[0]):
        if path.is_file():
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            if digest != _MD5:
                return (
                    "The CIFAR-10 files here are not the publisher's (another checksum; a JPEG "
                    "copy, for example): published figures are on other pixels."
                )
    return ""
