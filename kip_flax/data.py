"""Data sets: a name and a folder in, a checked `Dataset` out; and class-balanced draws.

Nothing is downloaded. The files are the publishers' own; `kip_flax.readers` decodes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

from kip_flax import readers
from kip_flax.errors import UserError

_PUBLISHED = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn")
DATASETS: tuple[str, ...] = (*_PUBLISHED, "folder", "npz")

_DIGIT_NAMES = tuple("0123456789")
_FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
# Folder, training batches, test batch, file of the class names, what the keys begin with.
_CIFAR = {
    "cifar10": ("cifar-10-batches-py", _BATCHES, "test_batch", "batches.meta", ""),
    "cifar100": ("cifar-100-python", ("train",), "test", "meta", "fine_"),
}
_SPLIT_SEED = 0  # of the split of data that come without a test set: the same for every run

Part = tuple[np.ndarray, np.ndarray]  # images (n, H, W, C), labels (n,)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as they are stored, before any preprocessing.

    Attributes:
        name: one of `DATASETS`.
        train_images, test_images: uint8 (n, H, W, C), C = 1 or 3.
        train_labels, test_labels: int32 (n,), 0 to num_classes - 1.
        class_names: one name per class.
        split: what the test images are: 'test', or 'validation' where they were training images.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    split: str = "test"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def known_images(self) -> np.ndarray:
        """All that preprocessing may be fitted on: validation images are training images there.

        So a set that was made beside validation images has the preprocessing of all others.
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
        name: one of `DATASETS`.
        data_dir: the folder that holds the publisher's files, or its parent; for 'folder' the
            folder of class folders (or of train/ and test/ with class folders); for 'npz' the file
            or a folder with exactly one; 'digits' needs none.
        image_size: side in pixels that the pictures of 'folder' are resized to.
        test_fraction: share of each class held out for testing by 'digits', by a 'folder' without
            train/ and test/ and by an 'npz' without test arrays. The split is always the same.

    Raises:
        UserError: unknown name, missing, damaged or contradictory files; names the file.
    """
    if name not in DATASETS:
        raise UserError(f"unknown data set {name!r}: dataset.name is one of {', '.join(DATASETS)}.")
    if not 0 < test_fraction < 1:
        raise UserError(f"dataset.test_fraction is {test_fraction}: set it between 0 and 1.")
    if image_size < 1:
        raise UserError(f"dataset.image_size is {image_size}: set it to at least 1.")
    if name == "digits":
        return _load_digits(test_fraction)
    if not data_dir:
        raise UserError(f"data set {name!r} needs files: set dataset.data_dir to their folder.")
    root = Path(data_dir).expanduser()
    if name == "mnist":
        return _load_idx(name, root, ("mnist",), _DIGIT_NAMES)
    if name == "fashion_mnist":
        return _load_idx(name, root, ("fashion-mnist", "fashion_mnist"), _FASHION_NAMES)
    if name in _CIFAR:
        return _load_cifar(name, root)
    if name == "svhn":
        train, test = readers.find(root, ("svhn",), ("train_32x32.mat", "test_32x32.mat"))
        parts = readers.read_svhn(train), readers.read_svhn(test)
        return _dataset(name, (train, test), *parts, _DIGIT_NAMES)
    if name == "folder":
        return _load_folder(root, image_size, test_fraction)
    return _load_npz(root, test_fraction)


def hold_out(dataset: Dataset, fraction: float) -> Dataset:
    """`dataset` with a part of its training images in the place of the test images.

    Settings are chosen on it, and the test images stay unread. The split is always the same.

    Args:
        dataset: with test images of its own.
        fraction: share of each class that is held out, above 0 and below 1.

    Raises:
        UserError: a class has only one image.
    """
    where = Path(f"the training set of {dataset.name}")
    train, held = _split(where, dataset.train_images, dataset.train_labels, fraction)
    return replace(
        dataset,
        train_images=train[0],
        train_labels=train[1],
        test_images=held[0],
        test_labels=held[1],
        split="validation",
    )


def balanced_draw(labels: np.ndarray, size: int, num_classes: int, key: jax.Array) -> np.ndarray:
    """Draws `size` different indices into `labels`, as evenly over the classes as can be.

    What does not divide by the number of classes goes to distinct random classes; a class with too
    few images is made up for by the others. The draw and its random order follow from `key` alone,
    on any number of devices.

    Args:
        labels: integers (n,), 0 to num_classes - 1.
        size: how many to draw.
        num_classes: how many classes there are.
        key: a JAX random key.

    Returns:
        int64 (size,).

    Raises:
        UserError: `size` is not between 1 and n.
    """
    if not 1 <= size <= len(labels):
        raise UserError(
            f"{size} images cannot be drawn from {len(labels)}: take between 1 and {len(labels)}."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels, minlength=num_classes)
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    # First everyone's first image, then everyone's second: whatever the size, the cut is even.
    in_turn = np.lexsort((rng.random(len(labels)), rank_in_class))
    return rng.permutation(by_class[in_turn[:size]])


def _load_digits(test_fraction: float) -> Dataset:
    """scikit-learn's 1,797 digits, uint8 (8, 8, 1): 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits  # a second to import, and only needed here

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    where = Path("scikit-learn's digits")
    parts = _split(where, images, digits.target, test_fraction)
    return _dataset("digits", (where, where), *parts, _DIGIT_NAMES)


def _load_idx(name: str, root: Path, folders: Sequence[str], names: tuple[str, ...]) -> Dataset:
    stems = [f"{s}-{f}-ubyte" for s in ("train", "t10k") for f in ("images-idx3", "labels-idx1")]
    paths = readers.find(root, folders, stems, suffix=".gz")
    arrays = [readers.read_idx(path, ndim) for path, ndim in zip(paths, (3, 1, 3, 1), strict=True)]
    train, test = (arrays[0][..., None], arrays[1]), (arrays[2][..., None], arrays[3])
    return _dataset(name, (paths[1], paths[3]), train, test, names)


def _load_cifar(name: str, root: Path) -> Dataset:
    folder, train, test, meta, prefix = _CIFAR[name]
    *train_paths, test_path, meta_path = readers.find(root, (folder,), (*train, test, meta))
    names = readers.read_cifar_names(meta_path, f"{prefix}label_names")
    batches = []
    for path in (*train_paths, test_path):
        images, labels = readers.read_cifar(path, f"{prefix}labels")
        readers.check_labels(path, labels, len(images), 0, len(names) - 1)
        batches.append((images, labels))
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:-1], strict=True))
    return _dataset(name, (train_paths[0], test_path), (images, labels), batches[-1], names)


def _load_folder(root: Path, size: int, test_fraction: float) -> Dataset:
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: set dataset.data_dir to one of class folders.")
    train_root, test_root = root / "train", root / "test"
    if not (train_root.is_dir() and test_root.is_dir()):
        names = readers.class_folders(root)
        parts = _split(root, *readers.read_pictures(root, names, size), test_fraction)
        return _dataset("folder", (root, root), *parts, names)
    names = readers.class_folders(train_root)
    if names != readers.class_folders(test_root):
        raise UserError(f"{train_root} and {test_root} differ in class folders: make them alike.")
    parts = (
        readers.read_pictures(train_root, names, size),
        readers.read_pictures(test_root, names, size),
    )
    return _dataset("folder", (train_root, test_root), *parts, names)


def _load_npz(root: Path, test_fraction: float) -> Dataset:
    files = sorted(root.glob("*.npz")) if root.is_dir() else [root]
    if len(files) != 1 or not files[0].is_file():
        raise UserError(
            f"{root} is not one .npz file nor a folder with exactly one: "
            f"set dataset.data_dir to the file."
        )
    path = files[0]
    arrays = readers.read_npz(path)
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    if all(key in arrays for key in keys):
        parts = readers.npz_part(path, arrays, "train_"), readers.npz_part(path, arrays, "test_")
    elif "images" in arrays and "labels" in arrays:
        parts = _split(path, *readers.npz_part(path, arrays, ""), test_fraction)
    else:
        raise UserError(
            f"{path} holds {', '.join(arrays) or 'nothing'}: "
            f"{', '.join(keys)} are expected, or images and labels."
        )
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"].reshape(-1).astype(str))
    else:
        names = tuple(str(i) for i in range(1 + max(int(part[1].max()) for part in parts)))
    return _dataset("npz", (path, path), *parts, names)


def _split(
    where: Path, images: np.ndarray, labels: np.ndarray, fraction: float
) -> tuple[Part, Part]:
    """Holds out `fraction` of every class, at least one image and not all; order is kept."""
    rng = np.random.default_rng(_SPLIT_SEED)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        (members,) = np.nonzero(labels == label)
        if len(members) < 2:
            raise UserError(
                f"{where} has one image of class {label}: at least two are needed to hold one out."
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[rng.permutation(members)[:count]] = True
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def _dataset(
    name: str, paths: tuple[Path, Path], train: Part, test: Part, class_names: tuple[str, ...]
) -> Dataset:
    """Checks that both parts hold images of one shape and a label in range for each."""
    for path, (images, labels) in zip(paths, (train, test), strict=True):
        if not len(images):
            raise UserError(f"{path} holds no images: at least one is needed.")
        if images.shape[-1] not in (1, 3) or 0 in images.shape:
            raise UserError(f"{path} has images of {images.shape[1:]}: 1 or 3 channels are needed.")
        readers.check_labels(path, labels, len(images), 0, len(class_names) - 1)
    if train[0].shape[1:] != test[0].shape[1:]:
        raise UserError(
            f"{paths[0]} and {paths[1]} disagree: training images are {train[0].shape[1:]}, "
            f"test images {test[0].shape[1:]}."
        )
    train_labels, test_labels = train[1].astype(np.int32), test[1].astype(np.int32)
    return Dataset(name, train[0], train_labels, test[0], test_labels, class_names)
