"""A user's own pictures: a folder per class, with or without a test part."""

from pathlib import Path

from kip_flax.data import readers
from kip_flax.data.source import Source
from kip_flax.runtime.errors import UserError

NAMES = ("folder",)


def read(name: str, root: Path, image_size: int) -> Source:
    """Pictures (image_size, image_size, 3): class folders, or train/ and test/ with class folders.

    Without train/ and test/ there is no test part.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: set dataset.data_dir to one of class folders.")
    train_root, test_root = root / "train", root / "test"
    if not (train_root.is_dir() and test_root.is_dir()):
        names = readers.class_folders(root)
        return Source((root, root), readers.read_pictures(root, names, image_size), None, names)
    names = readers.class_folders(train_root)
    if names != readers.class_folders(test_root):
        raise UserError(f"{train_root} and {test_root} differ in class folders: make them alike.")
    train, test = (
        readers.read_pictures(path, names, image_size) for path in (train_root, test_root)
    )
    return Source((train_root, test_root), train, test, names)
