"""Reading of data sets: a name and a folder in, a checked `Dataset` out.

Nothing is downloaded. The files are the publishers' own; the modules of `sets` read them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax.data import readers, sets
from kip_flax.data.source import Part, Source
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.fields import Section

DATASETS: tuple[str, ...] = sets.NAMES
_SPLIT_SEED = 0  # Every run holds out the same images.


def _check(fields: Mapping[str, Any]) -> None:
    sets.find(fields["dataset.name"])
    if fields["dataset.preprocess_from"]:
        sets.find(fields["dataset.preprocess_from"])
    test, validation = fields["dataset.test_fraction"], fields["dataset.validation"]
    if not 0 < test < 1:
        raise UserError(f"dataset.test_fraction is {test}: it must lie between 0 and 1.")
    if not 0 <= validation < 1:
        raise UserError(f"dataset.validation is {validation}: it must be at least 0 and below 1.")
    classes = fields["dataset.classes"]
    if not all(isinstance(each, int | str) for each in classes):
        raise UserError(f"dataset.classes is {classes}: take numbers or names of classes.")
    if len(set(classes)) != len(classes) or len(classes) == 1:
        raise UserError(
            f"dataset.classes is {classes}: take two or more different classes, or () for all."
        )


SECTION = Section(
    {
        "dataset.name": str,
        "dataset.data_dir": str,
        "dataset.image_size": int,
        "dataset.test_fraction": float,
        "dataset.validation": float,
        "dataset.classes": tuple,
        "dataset.preprocess_from": str,
    },
    minima={"dataset.image_size": 1},
    check=_check,
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as they are stored, before any preprocessing.

    Attributes:
        name: one of `DATASETS`, or the dotted name of a user's own module.
        train_images, test_images: uint8 (n, H, W, C), C = 1 or 3.
        train_labels, test_labels: int32 (n,), 0 to num_classes - 1.
        class_names: one name per class.
        split: 'test', or 'validation' if the test images were held out of the training images.
        mirrorable: whether an image keeps its class when left and right are swapped.
        whole: whether all classes of the data set are included.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    split: str = "test"
    mirrorable: bool = False
    whole: bool = True

    @property
    def title(self) -> str:
        """The name, with the classes if only some are included."""
        return self.name if self.whole else f"{self.name} ({', '.join(self.class_names)})"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def known_images(self) -> np.ndarray:
        """All images (n, H, W, C) that preprocessing may be fitted on, validation images included.

        So a set has the same preprocessing with and without validation images.
        """
        if self.split == "test":
            return self.train_images
        return np.concatenate([self.train_images, self.test_images])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels


def load_dataset(
    name: str, data_dir: str = "", *, image_size: int = 32, test_fraction: float = 0.2
) -> Dataset:
    """Reads the data set `name`.

    Args:
        name: one of `DATASETS`, or any module by its dotted name (see `sets`).
        data_dir: the folder with the files, or its parent; see the data set's module.
        image_size: side in pixels to which pictures of various sizes are resized.
        test_fraction: share of each class that is held out for testing if there is no test part.
            The split is always the same.

    Raises:
        UserError: the name is unknown, a number out of range, or a file missing, damaged or
            contradictory; the message names the file.
    """
    module = sets.find(name)
    if not 0 < test_fraction < 1:
        raise UserError(f"dataset.test_fraction is {test_fraction}: set it between 0 and 1.")
    if image_size < 1:
        raise UserError(f"dataset.image_size is {image_size}: set it to at least 1.")
    if not data_dir and getattr(module, "NEEDS_FILES", True):
        raise UserError(f"data set {name!r} needs files: set dataset.data_dir to their folder.")
    found: Source = module.read(name, Path(data_dir).expanduser(), image_size)
    train, test = found.train, found.test
    for path, part in zip(found.paths, (train, test), strict=True):
        if part is not None:
            _check_part(path, part, found.class_names)
    if broken := [name for name in found.class_names if "\n" in name]:
        raise UserError(f"{found.paths[0]} has the class {broken[0]!r}: take the line break out.")
    if len(set(found.class_names)) < len(found.class_names):
        raise UserError(
            f"{found.paths[0]} has two classes of one name ({', '.join(found.class_names)}): name "
            f"each differently."
        )
    if test is None:
        train, test = _split(found.paths[0], train, found.class_names, test_fraction)
    return _joined(name, found, train, test)


def hold_out(dataset: Dataset, fraction: float) -> Dataset:
    """`dataset` with a part of its training images in place of the test images.

    Settings are chosen on that part without the test images. The split is always the same.

    Args:
        dataset: a data set with its own test images.
        fraction: share of each class that is held out, above 0 and below 1.

    Raises:
        UserError: a class has only one image.
    """
    where = Path(f"the training set of {dataset.name}")
    part = dataset.train_images, dataset.train_labels
    train, held = _split(where, part, dataset.class_names, fraction)
    return replace(
        dataset,
        train_images=train[0],
        train_labels=train[1],
        test_images=held[0],
        test_labels=held[1],
        split="validation",
    )


def of_classes(dataset: Dataset, classes: Sequence[int | str]) -> Dataset:
    """`dataset` with only some of its classes, renumbered from 0 in the order given.

    Args:
        dataset: the whole data set.
        classes: numbers from 0 (int), or names (str).

    Raises:
        UserError: there is no such class, one is named twice, or no images are left in a part.
    """
    names = dataset.class_names
    numbers = []
    for one in classes:
        number = names.index(one) if one in names else one
        if not isinstance(number, int) or number not in range(len(names)):
            raise UserError(
                f"dataset.classes names {one!r}: {dataset.name} has the classes "
                f"{', '.join(names)}, or 0 to {len(names) - 1}."
            )
        numbers.append(number)
    if len(set(numbers)) != len(numbers):
        raise UserError(f"dataset.classes is {tuple(classes)}: it names a class twice.")
    new = np.full(len(names), -1, np.int32)
    new[numbers] = np.arange(len(numbers))
    parts = {}
    for part in ("train", "test"):
        labels = new[getattr(dataset, f"{part}_labels")]
        parts[f"{part}_images"] = getattr(dataset, f"{part}_images")[labels >= 0]
        parts[f"{part}_labels"] = labels[labels >= 0]
        if not len(parts[f"{part}_labels"]):
            raise UserError(f"dataset.classes is {tuple(classes)}: there are no {part} images.")
    return replace(dataset, class_names=tuple(names[i] for i in numbers), whole=False, **parts)


def held_out_of(count: int, fraction: float) -> int:
    """How many of `count` images of a class are held out: at least one and not all."""
    return min(max(1, round(fraction * count)), count - 1)


def _split(where: Path, part: Part, names: Sequence[str], fraction: float) -> tuple[Part, Part]:
    """Holds out `fraction` of every class, see `held_out_of`; order is kept."""
    images, labels = part
    rng = np.random.default_rng(_SPLIT_SEED)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        if len(members) < 2:
            raise UserError(
                f"{where} has one image of class {names[label]}: at least two are needed to hold "
                f"one out."
            )
        count = held_out_of(len(members), fraction)
        held_out[rng.permutation(members)[:count]] = True
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def _check_part(path: Path, part: Part, class_names: Sequence[str]) -> None:
    """Checks that a part holds uint8 images and a label in range for each."""
    images, labels = part
    if not len(images):
        raise UserError(f"{path} holds no images: at least one is needed.")
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{path} has images of type {images.dtype} and shape {images.shape}: uint8 "
            f"(n, height, width, channels) from 0 to 255 are needed."
        )
    if images.shape[-1] not in (1, 3) or 0 in images.shape:
        raise UserError(f"{path} has images of {images.shape[1:]}: 1 or 3 channels are needed.")
    readers.check_labels(path, labels, len(images), 0, len(class_names) - 1)


def _joined(name: str, source: Source, train: Part, test: Part) -> Dataset:
    """The data set of two checked parts; UserError if their images differ in shape."""
    if train[0].shape[1:] != test[0].shape[1:]:
        both = " and ".join(map(str, source.paths))
        raise UserError(
            f"{both} disagree: training images are {train[0].shape[1:]}, test images "
            f"{test[0].shape[1:]}."
        )
    train_labels, test_labels = train[1].astype(np.int32), test[1].astype(np.int32)
    return Dataset(
        name,
        train[0],
        train_labels,
        test[0],
        test_labels,
        source.class_names,
        mirrorable=sets.facts(name).may_be_mirrored(train[0].shape[-1]),
    )
