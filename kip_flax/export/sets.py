"""The only writer, and the reader, of distilled sets and their index.

Distilled sets have the published form (Nguyen et al., NeurIPS 2021): an npz with `images` and
`labels`, named by `distilled_name`, listed in an index csv. Ours hold more under further keys,
which readers of the published form ignore.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax import preprocess as preprocessing
from kip_flax.data import Dataset
from kip_flax.preprocess import Preprocess
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError

_IDENTITY = ("architecture", "dataset", "ssize", "zca", "l", "aug", "ckpt")
_PUBLISHED_COLUMNS = (*_IDENTITY, "test_acc", "test_mse", "URL")
INDEX_COLUMNS = (*_PUBLISHED_COLUMNS, "network_acc")
FIRST_CLASSES = "first_classes"  # In the provenance: the class with which each image began.
_PREFIX = "preprocess/"
_HEAVY_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Description:
    """The content of a distilled set's file besides images and labels.

    Attributes:
        preprocess: the preprocessing whose space the images are in.
        class_names: C names.
        kernel: hyper-parameters of the kernel, JSON values; empty if they are not known.
        provenance: how the set was made (data set, config, versions ...), JSON values.
    """

    preprocess: Preprocess
    class_names: Sequence[str]
    kernel: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Distilled:
    """A distilled set as read from `path`.

    Attributes:
        path: the file it came from.
        images: (S, H, W, channels) float32, in preprocessed space.
        labels: (S, C) float32.
        meta: class_names, kernel, provenance; None for files published by others.
        preprocess: arrays of the preprocessing; None if the file (or its side file) lacks them, so
            that it has to be fitted again on the training images.
        known_preprocess: those of its arrays that `path` has itself.
    """

    path: Path
    images: np.ndarray
    labels: np.ndarray
    meta: dict[str, Any] | None
    preprocess: dict[str, np.ndarray] | None
    known_preprocess: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def preprocess_name(self) -> str | None:
        """Name of the preprocessing, as recorded or as a published file name implies; or None."""
        if self.meta is not None and "preprocess" in self.meta:
            return self.meta["preprocess"]
        return preprocess_in_name(self.path)

    @property
    def preprocess_file(self) -> Path | None:
        """The file with the large arrays of the preprocessing; None if `path` has them all."""
        name = (self.meta or {}).get("preprocess_file")
        return self.path.with_name(Path(name).name) if name else None

    @property
    def provenance(self) -> dict[str, Any]:
        """How the set was made: data set, config, versions ...; {} if it is not recorded."""
        return (self.meta or {}).get("provenance", {})

    @property
    def first_classes(self) -> np.ndarray:
        """(S,) the class that each image began with; its largest label if that is not recorded."""
        known = self.provenance.get(FIRST_CLASSES, ())
        return np.asarray(known) if len(known) == len(self.labels) else self.labels.argmax(axis=1)

    @property
    def kernel(self) -> dict[str, Any]:
        """Hyper-parameters of the kernel that it was made for; {} if they are not recorded."""
        return (self.meta or {}).get("kernel", {})

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C names that the file records, or else the numbers of the classes."""
        names = (self.meta or {}).get("class_names", range(self.labels.shape[1]))
        return tuple(str(name) for name in names)

    @property
    def norm_is_lost(self) -> bool:
        """Whether the preprocessing divided each image by its own norm, which is not kept."""
        return "image_norm" in (self.preprocess or {})

    def pictures(self) -> np.ndarray:
        """The images (S, H, W, channels) in about [0, 1], to look at, with preprocessing undone.

        Without the arrays of the preprocessing, the values are stretched to [0, 1].
        """
        if self.preprocess is not None:
            return preprocessing.invert(preprocessing.from_arrays(self.preprocess), self.images)
        low, high = self.images.min(), self.images.max()
        return (self.images - low) / max(high - low, 1e-9)


def distilled_name(
    architecture: str,
    support_size: int,
    preprocess: str,
    learn_labels: bool,
    augmented: bool,
    step: int,
) -> str:
    """Published name, without suffix, such as `ConvNet_ssize100_zca_nol_noaug_ckpt1000`.

    `architecture` is spelt by `architectures.published_name`.
    """
    zca = "zca" if preprocess.startswith("zca") else "nozca"
    learned, augment = "l" if learn_labels else "nol", "aug" if augmented else "noaug"
    return f"{architecture}_ssize{support_size}_{zca}_{learned}_{augment}_ckpt{step}"


def preprocess_in_name(path: Path) -> str | None:
    """The preprocessing that a published file name implies; None if it implies none."""
    parts = path.stem.split("_")
    return "zca_normalize" if "zca" in parts else "standard" if "nozca" in parts else None


def write_distilled(
    path: str | os.PathLike[str],
    images: np.ndarray,
    labels: np.ndarray,
    description: Description,
) -> None:
    """Writes one distilled set as npz, atomically; the same input gives the same bytes.

    Keys: `images`, `labels` (the published form), `meta` (the description as JSON) and
    `preprocess/NAME` arrays. No pickle is needed. Arrays of preprocessing above 1 MiB (whitening
    matrices of 32x32x3 images, 38 MB each) would make every checkpoint heavy: they are written
    once to `preprocess-HASH.npz` beside it, which `meta` names and `load_distilled` reads if it is
    there.

    Args:
        path: the file, ending in .npz.
        images: (S, H, W, channels), in preprocessed space; stored as float32.
        labels: (S, C); stored as float32.
        description: everything else that the file records.

    Raises:
        UserError: a file cannot be written.
    """
    path = Path(path)
    fitted = preprocessing.to_arrays(description.preprocess)
    light = {key: array for key, array in fitted.items() if array.nbytes <= _HEAVY_BYTES}
    heavy = {key: array for key, array in fitted.items() if key not in light}
    meta = {
        "format": 1,
        "preprocess": description.preprocess.name,
        "preprocess_file": _write_once(path.parent, heavy) if heavy else None,
        "class_names": list(description.class_names),
        "kernel": dict(description.kernel),
        "provenance": dict(description.provenance),
    }
    arrays = {
        "images": np.asarray(images, np.float32),
        "labels": np.asarray(labels, np.float32),
        "meta": np.array(json.dumps(meta)),
    }
    arrays |= {_PREFIX + name: array for name, array in light.items()}
    files.write_arrays(path, arrays)


def load_distilled(path: str | os.PathLike[str]) -> Distilled:
    """Reads a distilled set, ours or one published in the same form without the extras.

    Raises:
        UserError: the file is missing, broken, or not of the form of `write_distilled`.
    """
    path = Path(path).expanduser()
    arrays = files.read_arrays(path)
    if missing := [key for key in ("images", "labels") if key not in arrays]:
        raise UserError(
            f"{path} lacks {' and '.join(missing)} (it holds {', '.join(arrays) or 'nothing'}): "
            "a distilled set is an npz of images (S, H, W, channels) and labels (S, classes)."
        )
    images, labels = arrays["images"], arrays["labels"]
    _check_array(path, "images", images, "(S, H, W, channels)")
    _check_array(path, "labels", labels, "(S, classes)")
    if len(images) != len(labels):
        raise UserError(
            f"{path}: {len(images)} images but {len(labels)} labels; a distilled set has as many "
            f"of the ones as of the others."
        )
    meta = _read_meta(path, arrays["meta"]) if "meta" in arrays else None
    known = {k.removeprefix(_PREFIX): v for k, v in arrays.items() if k.startswith(_PREFIX)}
    preprocess = known
    if meta and (side := meta.get("preprocess_file")):
        side_path = path.with_name(Path(side).name)
        preprocess = known | files.read_arrays(side_path) if side_path.exists() else {}
    found = images.astype(np.float32), labels.astype(np.float32)
    return Distilled(path, *found, meta, preprocess or None, known)


def check_is_free(path: str | os.PathLike[str], images: np.ndarray, labels: np.ndarray) -> None:
    """Raises UserError if the file of a set is there and holds other images or labels."""
    if not Path(path).exists():
        return
    held = load_distilled(path)
    pairs = (held.images, images), (held.labels, labels)
    if not all(np.array_equal(old, np.float32(new)) for old, new in pairs):  # As stored.
        raise UserError(f"{path} holds another set of this name: take another --workdir.")


def check_fits(distilled: Distilled, dataset: Dataset, preprocess_name: str) -> None:
    """Raises UserError unless a distilled set fits a data set and a preprocessing.

    Call it with the config's name before fitting or reading a preprocessing.

    Raises:
        UserError: the images' shape, the classes or the name of the preprocessing differ, as far
            as the file records them.
    """
    if distilled.images.shape[1:] != dataset.image_shape:
        raise UserError(
            f"{distilled.path} has images of {_by(distilled.images.shape[1:])}, {dataset.name} has "
            f"{_by(dataset.image_shape)}: set --config.dataset.name and dataset.image_size to fit."
        )
    if distilled.labels.shape[1] != dataset.num_classes:
        raise UserError(
            f"{distilled.path} has labels for {distilled.labels.shape[1]} classes, {dataset.name} "
            f"has {dataset.num_classes}: set --config.dataset.name and dataset.classes to what it "
            "was made from."
        )
    names = (distilled.meta or {}).get("class_names")
    if names is not None and tuple(names) != tuple(dataset.class_names):
        raise UserError(
            f"{distilled.path} has classes {_few(names)}, {dataset.name} has "
            f"{_few(dataset.class_names)}: set --config.dataset.name and dataset.classes to what "
            "it was made from."
        )
    recorded = distilled.preprocess_name
    if recorded not in (None, preprocess_name):
        raise UserError(
            f"{distilled.path} was made with preprocess={recorded}, the config says "
            f"{preprocess_name}: pass --config.preprocess={recorded}."
        )


def update_index(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
    """Puts `row` (keys: `INDEX_COLUMNS`) into the index csv, sorted by ckpt, atomically.

    A row of the same set and ckpt is replaced, so that a resumed run leaves no duplicates.

    Raises:
        UserError: the file there is not such an index, or cannot be written.
        KeyError: `row` has other keys.
    """
    path = Path(path)
    if set(row) != set(INDEX_COLUMNS):
        raise KeyError(f"a row of the index has {INDEX_COLUMNS}, not {tuple(row)}")
    new = {column: str(row[column]) for column in INDEX_COLUMNS}
    rows = [old for old in _read_index(path) if any(old[c] != new[c] for c in _IDENTITY)]
    rows = sorted([*rows, new], key=lambda r: int(r["ckpt"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, INDEX_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_bytes_atomic(path, text.getvalue().encode())


def _read_index(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines(), strict=True)
        if tuple(header) not in (INDEX_COLUMNS, _PUBLISHED_COLUMNS):
            raise ValueError(f"its columns are not {','.join(INDEX_COLUMNS)}")
        unknown = dict.fromkeys(INDEX_COLUMNS, "")
        read = [unknown | dict(zip(header, row, strict=True)) for row in rows]
        for row in read:
            int(row["ckpt"])
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"cannot read {path} ({error}): move it away to begin a new one."
        ) from error
    return read


def _write_once(folder: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Writes an npz named by its content, unless it is there; returns the file's name."""
    data = files.npz_bytes(arrays)
    name = f"preprocess-{hashlib.sha256(data).hexdigest()[:12]}.npz"
    if not (folder / name).exists():
        files.write_bytes_atomic(folder / name, data)
    return name


def _check_array(path: Path, key: str, array: np.ndarray, form: str) -> None:
    if array.ndim != form.count(",") + 1 or 0 in array.shape or array.dtype.kind != "f":
        hint = ""
        if key == "labels" and array.ndim == 1:
            hint = "; class numbers become labels by krr.centered_one_hot"
        raise UserError(
            f"{path}: {key} are {array.dtype} of shape {array.shape}; a distilled set has floats "
            f"of shape {form}{hint}."
        )
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {key} hold NaN or inf; take a checkpoint of an earlier step.")


def _read_meta(path: Path, text: np.ndarray) -> dict[str, Any]:
    try:
        meta = json.loads(str(text))
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise UserError(f"{path}: meta is not a JSON object; take another copy of the file.")
    return meta


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
