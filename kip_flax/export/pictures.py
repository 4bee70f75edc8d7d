"""Pictures of a distilled set: 8 bits a channel, as viewers and image folders want them."""

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kip_flax.runtime.files import write_bytes_atomic


def to_uint8(pictures: np.ndarray) -> np.ndarray:
    """Pictures (n, H, W, channels) in about [0, 1] as uint8; what lies beyond is clipped."""
    return np.rint(255 * np.clip(pictures, 0, 1)).astype(np.uint8)


def png_bytes(picture: np.ndarray) -> bytes:
    """One picture, uint8 (H, W, 1 or 3), as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()


def names(classes: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """A file for each picture in the folder of its class, such as `3_cat/0007.png`.

    Folders begin with the number of the class: sorted by name, as image folders are read, they give
    the classes their numbers back.

    Args:
        classes: (n,) class numbers.
        class_names: one for each class.
    """
    digits = len(str(len(class_names) - 1))
    plain = [re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] for name in class_names]
    folders = [f"{c:0{digits}d}_{name}" for c, name in enumerate(plain)]
    return [f"{folders[c]}/{number:04d}.png" for number, c in enumerate(classes)]


def write_folders(
    folder: str | os.PathLike[str],
    pictures: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes pictures, uint8 (n, H, W, channels), below `folder` under their `names`."""
    for picture, name in zip(pictures, names(classes, class_names), strict=True):
        write_bytes_atomic(Path(folder) / name, png_bytes(picture))
