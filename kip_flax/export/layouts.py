"""Layouts in which other projects save distilled sets, recognised by their content.

kip    Nguyen et al. 2021, as published: npz of `images` (S, H, W, channels) and `labels`.
rfad   Loo et al. 2022, yolky/RFAD: npz of `images` (S, channels, H, W), `labels`, `k`, `jit`.
frepo  Zhou et al. 2022, yongchaoz/FRePo: npz of `image` (S, H, W, channels) and `label`.
dc     Zhao et al. 2021, VICO-UoE/DatasetCondensation (DC, DSA, DM): a file of torch.save,
       {'data': [[images (S, channels, H, W), class numbers], ...]}, one pair for each experiment.
mtt    Cazenavette et al. 2022, and DATM, DD-Ranking: two files of torch.save, images*.pt
       (S, channels, H, W) and labels*.pt beside it.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax.export import torch_files
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

LAYOUTS = ("kip", "rfad", "frepo", "dc", "mtt")
OF_ONE_METHOD = ("kip", "rfad", "frepo")  # Named like its algorithm; others save sets of several.
BY_FIELD_CONSTANTS = ("dc", "mtt")  # Normalised by the constants of the field's evaluators.
_CHANNELS_FIRST = ("rfad", "dc", "mtt")
_RFAD_REG = 5e-3  # Of files without `jit`, as RFAD's evaluation takes them.


@dataclass(frozen=True)
class Found:
    """The sets of one file as their makers save them, but with the channels last.

    Attributes:
        layout: one of `LAYOUTS`.
        sets: pairs of images (S, H, W, channels) and labels, (S,) class numbers or (S, C).
        reg: the regulariser that the set is evaluated with, if the file or its layout says it.
    """

    layout: str
    sets: list[tuple[np.ndarray, np.ndarray]]
    reg: float | None = None


def read(path: Path, layout: str, image_shape: tuple[int, int, int]) -> Found:
    """Reads the sets in `path`.

    Args:
        path: the file; for layout 'mtt', either one of the pair.
        layout: one of `LAYOUTS`, or 'auto' to recognise it.
        image_shape: (H, W, channels) that images should have.

    Raises:
        UserError: the file is missing, broken or not of that layout, or its images have another
            shape.
    """
    if layout not in (*LAYOUTS, "auto"):
        raise UserError(f"unknown layout {layout!r}: --layout is auto or {', '.join(LAYOUTS)}.")
    content = _content(path)
    layout = _recognised(path, content, image_shape) if layout == "auto" else layout
    pairs, reg = _pairs(path, content, layout)
    sets = [_oriented(path, layout, *pair, image_shape) for pair in pairs]
    return Found(layout, sets, reg)


def _content(path: Path) -> Any:
    """The arrays of an npz, or the content of a torch.save file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}: --distilled names the file to import.")
    if path.suffix == ".npz" or _is_npz(path):
        return files.read_arrays(path)
    return torch_files.read(path)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return False  # PyTorch's older form, or a damaged archive.


def _recognised(path: Path, content: Any, image_shape: tuple[int, int, int]) -> str:
    if isinstance(content, np.ndarray):
        return "mtt"
    keys = set(content) if isinstance(content, dict) else set()
    if {"images", "labels", "meta"} <= keys:
        raise UserError(
            f"{path} is in our form already: --mode=evaluate and --mode=transfer take it as it is."
        )
    if {"images", "labels", "class_names", "preprocess"} <= keys:
        raise UserError(
            f"{path} is of an export of ours: take the .npz in the folder above, which "
            f"--mode=evaluate and --mode=transfer read as it is."
        )
    if {"images", "labels"} <= keys and isinstance(content["images"], np.ndarray):
        height, width, channels = image_shape
        first = content["images"].shape[1:] == (channels, height, width) != image_shape
        return "rfad" if first or "jit" in keys else "kip"
    if {"image", "label"} <= keys:
        return "frepo"
    if "data" in keys:
        return "dc"
    what = (
        f"the keys {', '.join(sorted(map(str, keys)))}" if keys else f"a {type(content).__name__}"
    )
    raise UserError(
        f"{path} holds {what[:200]}: known are npz files of images and labels (kip, rfad) or image "
        f"and label (frepo), and .pt files with data (dc) or a tensor (mtt)."
    )


def _pairs(
    path: Path, content: Any, layout: str
) -> tuple[list[tuple[np.ndarray, np.ndarray]], float | None]:
    """Images and labels of each set, and the regulariser."""
    try:
        if layout == "mtt":
            return [_mtt(path, content)], None
        if layout == "dc":
            return [(images, labels) for images, labels in content["data"]], None
        keys = ("image", "label") if layout == "frepo" else ("images", "labels")
        missing = _RFAD_REG if layout == "rfad" else None
        reg = float(content["jit"]) if "jit" in content else missing
        return [(content[keys[0]], content[keys[1]])], reg
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{path} is not of the layout {layout} ({type(error).__name__}: {error}): leave "
            f"--layout out to have it recognised."
        ) from error


def _mtt(path: Path, content: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels from the pair of files, of which `path` is either one."""
    stem, other = ("images", "labels") if "images" in path.name else ("labels", "images")
    partner = path.with_name(path.name.replace(stem, other))
    if partner == path or not partner.is_file():
        raise UserError(
            f"{path} holds one tensor: images*.pt and labels*.pt are wanted, beside each other "
            f"and of one name."
        )
    beside = torch_files.read(partner)
    return (content, beside) if stem == "images" else (beside, content)


def _oriented(
    path: Path, layout: str, images: Any, labels: Any, image_shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Images with channels last, and labels; UserError if they do not have the form of `layout`."""
    for name, array in (("images", images), ("labels", labels)):
        if not isinstance(array, np.ndarray):
            raise UserError(f"{path}: its {name} are no tensor: save them anew with torch.save.")
    height, width, channels = image_shape
    first = (channels, height, width)
    expected = first if layout in _CHANNELS_FIRST else image_shape
    if images.shape[1:] != expected:
        raise UserError(_shape_hint(path, layout, images.shape, expected, image_shape))
    return (np.moveaxis(images, 1, -1) if layout in _CHANNELS_FIRST else images), labels


def _shape_hint(
    path: Path,
    layout: str,
    shape: tuple[int, ...],
    expected: tuple[int, ...],
    image_shape: tuple[int, int, int],
) -> str:
    height, width, channels = image_shape
    sizes = ", ".join(map(str, expected))
    found = f"{path}: images are of shape {shape}, those of layout {layout} of (S, {sizes})"
    if shape[1:] == image_shape:
        return f"{found}: their channels come last, take --layout=kip or frepo."
    if shape[1:] == (channels, height, width):
        return f"{found}: their channels come first, take --layout=rfad."
    if len(shape) == 2 and shape[1] == height * width * channels:
        return f"{found}: they are flattened, reshape them and save them anew."
    return f"{found}: set --config.dataset.name and dataset.image_size to what they were made from."
