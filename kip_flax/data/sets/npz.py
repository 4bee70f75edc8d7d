"""A user's own arrays: one .npz file, with or without a test part."""

from pathlib import Path

import numpy as np

from kip_flax.data import readers
from kip_flax.data.source import Source
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

NAMES = ("npz",)
_KEYS = ("train_images", "train_labels", "test_images", "test_labels")


def read(name: str, root: Path, image_size: int) -> Source:
    """The arrays of the file `root`, or of the only .npz file in the folder `root`.

    Either train_images, train_labels, test_images and test_labels, or images and labels without a
    test part; images are uint8 (n, H, W) or (n, H, W, C). class_names are optional.
    """
    found = sorted(root.glob("*.npz")) if root.is_dir() else [root]
    if len(found) != 1 or not found[0].is_file():
        raise UserError(
            f"{root} is not one .npz file nor a folder with exactly one: "
            f"set dataset.data_dir to the file."
        )
    path = found[0]
    arrays = files.read_arrays(path)
    test = None
    if all(key in arrays for key in _KEYS):
        train = readers.npz_part(path, arrays, "train_")
        test = readers.npz_part(path, arrays, "test_")
    elif "images" in arrays and "labels" in arrays:
        train = readers.npz_part(path, arrays, "")
    else:
        raise UserError(
            f"{path} holds {', '.join(arrays) or 'nothing'}: "
            f"{', '.join(_KEYS)} are expected, or images and labels."
        )
    if "class_names" in arrays:
        names = readers.npz_names(path, arrays["class_names"])
    else:
        labels = np.concatenate([part[1] for part in (train, test) if part is not None])
        if labels.max() >= len(labels):
            raise UserError(
                f"{path} holds labels up to {labels.max()} for {len(labels)} images: number the "
                f"classes from 0 without gaps, or give class_names."
            )
        names = tuple(str(i) for i in range(1 + int(labels.max())))
    return Source((path, path), train, test, names)
