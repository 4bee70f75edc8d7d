"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017): IDX files, gzipped or not."""

from pathlib import Path

from kip_flax.data import readers
from kip_flax.data.source import Facts, Source

_FOLDERS = {"mnist": ("mnist",), "fashion_mnist": ("fashion-mnist", "fashion_mnist")}
NAMES = tuple(_FOLDERS)
_CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
}
_FILES = [
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
]
_GREY = {"rfad": "standard", "frepo": "standard"}  # All makers standardise, none whitens.
# Moments: VICO-UoE/DatasetCondensation, utils.py (get_dataset).
FACTS = {
    "mnist": Facts("MNIST", ((0.1307,), (0.3081,)), _GREY, mirrorable=False),
    "fashion_mnist": Facts("FashionMNIST", ((0.2861,), (0.3530,)), _GREY, mirrorable=True),
}


def read(name: str, root: Path, image_size: int) -> Source:
    """Images uint8 (28, 28, 1) of the four files in `root`, or in its folder of the usual name."""
    paths = readers.find(root, _FOLDERS[name], _FILES, suffix=".gz")
    arrays = [readers.read_idx(path, ndim) for path, ndim in zip(paths, (3, 1, 3, 1), strict=True)]
    train, test = (arrays[0][..., None], arrays[1]), (arrays[2][..., None], arrays[3])
    return Source((paths[1], paths[3]), train, test, _CLASSES[name])
