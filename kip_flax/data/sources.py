"""Where the files of each data set lie, and what they hold: images and labels, unchecked."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kip_flax.data import readers
from kip_flax.runtime.errors import UserError

Part = tuple[np.ndarray, np.ndarray]  # images (n, H, W, C), labels (n,)

_DIGIT_NAMES = tuple("0123456789")
_FASHION_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


class Source(NamedTuple):
    """What files hold.

    Attributes:
        paths: the training part's and the test part's, for messages.
        train, test: None in the place of a test part that is not there.
        class_names: one name per class.
    """

    paths: tuple[Path, Path]
    train: Part
    test: Part | None
    class_names: tuple[str, ...]


def digits() -> Source:
    """scikit-learn's 1,797 digits, uint8 (8, 8, 1): 0..16 becomes 0..255."""
    from sklearn.datasets import load_digits  # a second to import, and only needed here

    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., None]
    where = Path("scikit-learn's digits")
    return Source((where, where), (images, found.target), None, _DIGIT_NAMES)


def folder(root: Path, size: int) -> Source:
    """Class folders of pictures, or train/ and test/ with class folders; resized to `size`."""
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: set dataset.data_dir to one of class folders.")
    train_root, test_root = root / "train", root / "test"
    if not (train_root.is_dir() and test_root.is_dir()):
        names = readers.class_folders(root)
        return Source((root, root), readers.read_pictures(root, names, size), None, names)
    names = readers.class_folders(train_root)
    if names != readers.class_folders(test_root):
        raise UserError(f"{train_root} and {test_root} differ in class folders: make them alike.")
    train, test = (readers.read_pictures(path, names, size) for path in (train_root, test_root))
    return Source((train_root, test_root), train, test, names)


def npz(root: Path) -> Source:
    """One .npz file, or a folder with exactly one."""
    files = sorted(root.glob("*.npz")) if root.is_dir() else [root]
    if len(files) != 1 or not files[0].is_file():
        raise UserError(
            f"{root} is not one .npz file nor a folder with exactly one: "
            f"set dataset.data_dir to the file."
        )
    path = files[0]
    arrays = readers.read_npz(path)
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    test = None
    if all(key in arrays for key in keys):
        train = readers.npz_part(path, arrays, "train_")
        test = readers.npz_part(path, arrays, "test_")
    elif "images" in arrays and "labels" in arrays:
        train = readers.npz_part(path, arrays, "")
    else:
        raise UserError(
            f"{path} holds {', '.join(arrays) or 'nothing'}: "
            f"{', '.join(keys)} are expected, or images and labels."
        )
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"].reshape(-1).astype(str))
    else:
        labels = [part[1] for part in (train, test) if part is not None]
        names = tuple(str(i) for i in range(1 + max(int(each.max()) for each in labels)))
    return Source((path, path), train, test, names)


def _idx(folders: Sequence[str], names: tuple[str, ...], root: Path) -> Source:
    stems = [f"{s}-{f}-ubyte" for s in ("train", "t10k") for f in ("images-idx3", "labels-idx1")]
    paths = readers.find(root, folders, stems, suffix=".gz")
    arrays = [readers.read_idx(path, ndim) for path, ndim in zip(paths, (3, 1, 3, 1), strict=True)]
    train, test = (arrays[0][..., None], arrays[1]), (arrays[2][..., None], arrays[3])
    return Source((paths[1], paths[3]), train, test, names)


def _cifar(
    folders: Sequence[str], files: tuple[Sequence[str], str, str], prefix: str, root: Path
) -> Source:
    """`files`: training batches, test batch, class names; `prefix`: what the keys begin with."""
    train, test, meta = files
    *train_paths, test_path, meta_path = readers.find(root, folders, (*train, test, meta))
    names = readers.read_cifar_names(meta_path, f"{prefix}label_names")
    batches = []
    for path in (*train_paths, test_path):
        images, labels = readers.read_cifar(path, f"{prefix}labels")
        readers.check_labels(path, labels, len(images), 0, len(names) - 1)
        batches.append((images, labels))
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches[:-1], strict=True))
    return Source((train_paths[0], test_path), (images, labels), batches[-1], names)


def _svhn(root: Path) -> Source:
    train, test = readers.find(root, ("svhn",), ("train_32x32.mat", "test_32x32.mat"))
    parts = readers.read_svhn(train), readers.read_svhn(test)
    return Source((train, test), *parts, _DIGIT_NAMES)


# By name, what reads the publisher's files below a folder.
PUBLISHED: Mapping[str, Callable[[Path], Source]] = {
    "mnist": functools.partial(_idx, ("mnist",), _DIGIT_NAMES),
    "fashion_mnist": functools.partial(_idx, ("fashion-mnist", "fashion_mnist"), _FASHION_NAMES),
    "cifar10": functools.partial(
        _cifar, ("cifar-10-batches-py",), (_BATCHES, "test_batch", "batches.meta"), ""
    ),
    "cifar100": functools.partial(
        _cifar, ("cifar-100-python",), (("train",), "test", "meta"), "fine_"
    ),
    "svhn": _svhn,
}
