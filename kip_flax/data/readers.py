"""File formats: one function per format, path in, checked NumPy arrays out.

The content of a file is never trusted. A decoding error, a wrong shape or a label out of range
becomes one `UserError` that names the file. A pickle can build only bytes, numbers, lists, dicts
and uint8 arrays. `kip_flax.data` puts the arrays together into data sets.
"""

import gzip
import io
import math
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.io
from PIL import Image, ImageOps

from kip_flax.runtime import files, hardware
from kip_flax.runtime.errors import UserError

_Read = TypeVar("_Read")

_IDX_UINT8 = 8
_GZIP_MAGIC = b"\x1f\x8b"
_OF_MAC_ARCHIVES = "__MACOSX"  # What unpacking an archive of a Mac leaves.
_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def find(root: Path, folders: Sequence[str], files: Sequence[str], suffix: str = "") -> list[Path]:
    """Paths of `files`, each with or without `suffix`, in one of `folders` of `root`, or in `root`.

    Folders come first: files of several data sets have the same names.

    Raises:
        UserError: none of these places has all files.
    """
    places = (*(root / folder for folder in folders), root)
    names = [(file, file + suffix) for file in files]
    found = [[p / a if (p / a).is_file() else p / b for a, b in names] for p in places]
    # If files are missing, the message names the folder that has the most.
    best = max(found, key=lambda paths: sum(path.is_file() for path in paths))
    missing = [path.name for path in best if not path.is_file()]
    if len(missing) == len(files):
        looked = " or ".join(map(str, (root, *places[:-1])))
        raise UserError(
            f"no {', '.join(files)} in {looked}: set dataset.data_dir to the folder that has them."
        )
    if missing:
        raise UserError(f"{best[0].parent} lacks {', '.join(missing)}: add the missing files.")
    return best


@contextmanager
def _decoding(path: Path, what: str) -> Iterator[None]:
    """Turns every error of a decoder into a `UserError` of one line about the file."""
    try:
        yield
    except UserError:
        raise
    except Exception as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0].rstrip(".")
        raise UserError(f"{path} is not a readable {what} ({reason}): replace it.") from err


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` axes in an IDX file, gzipped or not (LeCun's MNIST page)."""
    with _decoding(path, "IDX file"):
        content = path.read_bytes()
        # The first bytes decide, not the suffix: browsers unpack .gz and keep the name.
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
        zero, kind, axes = struct.unpack_from(">HBB", content)
        if (zero, kind, axes) != (0, _IDX_UINT8, ndim):
            raise UserError(
                f"{path} starts with 0x{content[:4].hex()}, not with the magic number "
                f"0x{_IDX_UINT8:06x}{ndim:02x} of an IDX file of {ndim} axes: get it again."
            )
        shape = struct.unpack_from(f">{ndim}I", content, 4)
    body = memoryview(content)[4 + 4 * ndim :]
    if len(body) != math.prod(shape):
        size = f"{len(body)} bytes of data instead of {math.prod(shape)}"
        raise UserError(f"{path} holds {size}: it is truncated or damaged, get it again.")
    return np.frombuffer(body, np.uint8).reshape(shape)


class _PickledDtype:
    """Replaces numpy.dtype: checks the code of the type and ignores the pickled state."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of type {code!r} instead of uint8")

    def __setstate__(self, state: object) -> None:
        pass


class _PickledArray:
    """Replaces numpy.ndarray: keeps the raw bytes, so NumPy never sees a pickled state."""

    def __init__(self, *_: object) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.fortran: bool = False
        self.raw: bytes = b""

    def __setstate__(self, state: tuple) -> None:
        _, self.shape, _, self.fortran, self.raw = state

    def array(self) -> np.ndarray:
        flat = np.frombuffer(self.raw, np.uint8)
        return flat.reshape(self.shape[::-1]).T if self.fortran else flat.reshape(self.shape)


def _encode(text: str, encoding: str) -> bytes:
    """Replaces _codecs.encode, which protocol 2 uses to write bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding!r} instead of latin1")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Allows only the names that the CIFAR batches of Python 2 and 3 and NumPy 1 and 2 need."""

    _allowed: dict[tuple[str, str], Callable[..., object]] = {  # noqa: RUF012 (never changed)
        ("_codecs", "encode"): _encode,
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return self._allowed[module, name]


def _read_pickled_dict(path: Path, keys: tuple[str, ...]) -> list[Any]:
    """The values of `keys` in a pickled dict, whether its keys are bytes or str."""
    with _decoding(path, "CIFAR batch"):
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        content = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
        missing = [key for key in keys if key not in content]
        if missing:
            raise UserError(
                f"{path} lacks {', '.join(missing)}: it is not the CIFAR file expected."
            )
        return [content[key] for key in keys]


def read_cifar(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 32, 32, 3) and labels (n,) of a CIFAR python batch.

    Args:
        path: a batch as its publisher (Krizhevsky, 2009) pickled it.
        label_key: 'labels' (CIFAR-10) or 'fine_labels' (CIFAR-100).
    """
    rows, labels = _read_pickled_dict(path, ("data", label_key))
    with _decoding(path, "CIFAR batch"):
        images = rows.array().reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), np.array([int(label) for label in labels], np.int64)


def read_cifar_names(path: Path, key: str) -> tuple[str, ...]:
    """Class names in a CIFAR meta file under `key` ('label_names' or 'fine_label_names')."""
    (names,) = _read_pickled_dict(path, (key,))
    with _decoding(path, "CIFAR meta file"):
        return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)


def read_svhn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 32, 32, 3) and labels 0..9 of an SVHN cropped-digits .mat file.

    The publisher (Netzer et al., 2011) stores images as (32, 32, 3, n) and the digit 0 as 10.
    """
    with _decoding(path, "MATLAB file"):
        content = scipy.io.loadmat(str(path), variable_names=("X", "y"))
        images, labels = content["X"], content["y"].reshape(-1)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise UserError(
            f"{path} holds X of {images.dtype} {images.shape}, not uint8 (32, 32, 3, n): "
            f"take the cropped digits (format 2) of SVHN."
        )
    check_labels(path, labels, len(labels), 1, 10)
    return np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10


def npz_names(path: Path, names: np.ndarray) -> tuple[str, ...]:
    """Class names that an .npz file holds as text or as bytes, in UTF-8."""
    with _decoding(path, ".npz file"):
        flat = names.reshape(-1)
        decoded = np.char.decode(flat, "utf-8") if flat.dtype.kind == "S" else flat.astype(str)
        return tuple(map(str, decoded))


def npz_part(
    path: Path, arrays: dict[str, np.ndarray], prefix: str
) -> tuple[np.ndarray, np.ndarray]:
    """Checked images uint8 (n, H, W, C) and labels (n,) under `prefix`images and `prefix`labels."""
    images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        fits = images.dtype.kind in "iu" and images.size and 0 <= images.min() <= images.max() < 256
        advice = "take images.astype(np.uint8)" if fits else "scale them to 0..255"
        raise UserError(
            f"{path} holds {prefix}images of {images.dtype} {images.shape}: uint8 (n, H, W) or "
            f"(n, H, W, C) is expected, {advice}."
        )
    labels = flat(labels)
    check_labels(path, labels, len(images), 0, np.iinfo(np.int32).max)
    if not len(images):
        raise UserError(f"{path} holds no images in {prefix}images: at least one is needed.")
    return (images if images.ndim == 4 else images[..., None]), labels


def flat(labels: np.ndarray) -> np.ndarray:
    """Labels (n,) of a row or a column of them; of another shape as they are."""
    return labels.reshape(-1) if labels.ndim == 2 and 1 in labels.shape else labels


def read_picture(path: Path, size: int, grey: bool = False) -> np.ndarray:
    """A picture as uint8 (size, size, 3): upright, RGB, centre-cropped to a square, resized.

    What is transparent becomes white; 16-bit grey, 0 to 65535, is scaled to 8 bits. If `grey`, it
    is (size, size, 1).

    Raises:
        UserError: it is no picture, or has 32 bits a pixel, or is white where it is not
            transparent.
    """
    with _decoding(path, "picture"), Image.open(path) as opened:
        picture = ImageOps.exif_transpose(opened)
        sixteen = picture.mode.startswith("I;16") or (
            opened.format == "PPM" and picture.mode == "I"
        )
        if picture.mode in ("I", "F") and not sixteen:
            raise UserError(
                f"{path} has 32 bits a pixel, whose white is not known: save it with 8 bits, or "
                f"with 16 and white as 65535."
            )
        if sixteen:
            # Pillow would clip these at 255 instead of scaling them.
            picture = Image.fromarray((np.asarray(picture) // 257).clip(0, 255).astype(np.uint8))
        colours = _on_white(path, picture).convert("L" if grey else "RGB")
        fitted = np.asarray(ImageOps.fit(colours, (size, size), Image.Resampling.BICUBIC))
        return fitted[..., None] if grey else fitted


def _on_white(path: Path, picture: Image.Image) -> Image.Image:
    """The picture on a white ground, if parts of it are transparent.

    Raises:
        UserError: what is not transparent is white alone.
    """
    if not picture.has_transparency_data:
        return picture
    own = picture.convert("RGBA")
    alpha = own.getchannel("A").getextrema()
    if alpha == (255, 255):
        return own.convert("RGB")
    laid = Image.alpha_composite(Image.new("RGBA", own.size, "white"), own)
    if alpha != (0, 0) and laid.getextrema() == ((255, 255),) * 4:
        raise UserError(
            f"{path} is white on a transparent ground: save it on a ground of another colour."
        )
    return laid


def pictures_below(root: Path) -> list[Path]:
    """Sorted paths of the pictures in `root` and in the folders below it; UserError if none.

    What is hidden, such as the files that a Mac adds to archives, is left out.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: name one with pictures.")
    files = (path for path in root.rglob("*") if path.is_file())
    pictures = (path for path in files if path.suffix.lower() in _PICTURES)
    found = sorted(
        path
        for path in pictures
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not found:
        raise UserError(f"{root} holds no picture ({' '.join(_PICTURES)}): add some.")
    return found


def class_folders(root: Path) -> tuple[str, ...]:
    """Sorted names of the folders in `root`, the classes.

    Raises:
        UserError: there are fewer than two, or the bytes of a name are no text.
    """
    folders = (p.name for p in root.iterdir() if p.is_dir())
    names = tuple(sorted(n for n in folders if not n.startswith(".") and n != _OF_MAC_ARCHIVES))
    if len(names) < 2:
        raise UserError(f"{root} holds {len(names)} class folders: at least two are needed.")
    for name in names:
        if not files.is_utf8(name):
            raise UserError(f"{root} has the folder {name!r}, which is no UTF-8: rename it.")
    return names


def read_pictures(root: Path, names: tuple[str, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    """All pictures (n, size, size, 3) in the class folders `names` of `root`, and labels (n,).

    Folders in a class folder belong to the class. UserError if there are folders alone: then they
    may be the classes.
    """
    found, labels = list[Path](), list[int]()
    for label, name in enumerate(names):
        paths = pictures_below(root / name)
        if not any(path.parent == root / name for path in paths):
            raise UserError(
                f"{root / name} holds folders and no picture: pictures lie in class folders, and "
                f"these in dataset.data_dir, or in its folders train and test."
            )
        found += paths
        labels += [label] * len(paths)
    images = side_by_side(lambda path: read_picture(path, size), found)
    return np.stack(images), np.array(labels)


def side_by_side(read: Callable[[Path], _Read], paths: Sequence[Path]) -> list[_Read]:
    """`read` of every path, in order; decoders run on all cores."""
    with ThreadPoolExecutor(hardware.usable_cores()) as pool:
        return list(pool.map(read, paths))


def check_labels(path: Path, labels: np.ndarray, count: int, low: int, high: int) -> None:
    """Raises UserError unless `labels` are `count` integers from `low` to `high`."""
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{path} holds labels of {labels.dtype} {labels.shape} for {count} images: "
            f"one integer per image is expected."
        )
    if count and not (low <= labels.min() and labels.max() <= high):
        raise UserError(
            f"{path} holds labels from {labels.min()} to {labels.max()}: "
            f"{low} to {high} are expected."
        )
