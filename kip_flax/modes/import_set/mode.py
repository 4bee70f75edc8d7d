"""`--mode=import`: a distilled set of another project as our npz, which every mode reads."""

import os
import shlex
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from kip_flax import __version__, export, preprocess
from kip_flax.data import Dataset, sets
from kip_flax.export import layouts
from kip_flax.export.layouts import Found
from kip_flax.export.sets import preprocess_in_name
from kip_flax.preprocess import Preprocess
from kip_flax.runs import setup
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

# How the makers of a layout preprocess most data sets (run_distillation.py of RFAD, dataloader.py
# of FRePo). Exceptions are facts of the data set (`preprocess_by`).
_USUAL_PREPROCESS = {"dc": "standard", "mtt": "standard", "rfad": "zca", "frepo": "zca_center"}
# The kernels of the makers that evaluate by one: RFAD's is the NNGP of the field's ConvNet-3.
_KERNELS = {"rfad": {"architecture": "convnet_plain", "depth": "3", "kind": "nngp"}}
_SAMPLE = 1000  # Training images to compare pixel values with.
_FAR = 30  # Largest factor between the root mean squares of a set and of the sample.


def import_file(
    config: ConfigDict, path: str, workdir: str, layout: str, console: Console | None = None
) -> list[str]:
    """Writes each set in `path` as an npz in the folder `workdir`, and prints a summary.

    The preprocessing is that of the layout's makers for the data set of `config`, fitted on its
    training images. For 'kip' it is the one in the file's name, or else the configuration's.

    Args:
        config: names the data set that the file was made from.
        path: the file.
        workdir: folder for the npz files.
        layout: one of `layouts.LAYOUTS`, or 'auto'.

    Returns:
        Paths of the files written.

    Raises:
        UserError: the file is broken, or does not fit the layout or the data set, or the folder
            holds another set of the same name or lies among the pictures. Nothing is written then.
    """
    if Path(path).resolve().parent == Path(workdir).resolve():
        raise UserError(f"--workdir={workdir} holds the file itself: take another folder.")
    setup.check_apart(workdir, config)
    dataset = setup.load(config)
    found = layouts.read(Path(path), layout, dataset.image_shape)
    if not found.sets:
        raise UserError(f"{path} holds no set: take another file.")
    name = preprocess_name(found.layout, Path(path), dataset.name, config.preprocess)
    fitted = preprocess.fit(name, dataset.known_images)
    if found.layout in layouts.BY_FIELD_CONSTANTS:
        fitted = sets.field_preprocess(dataset.name, fitted)
    provenance = {
        "dataset": dataset.name,
        "imported": os.path.basename(path),
        "layout": found.layout,
        "versions": {"kip_flax": __version__},
    }
    description = export.Description(fitted, dataset.class_names, provenance=provenance)
    imported = {}
    for number, (images, stored_labels) in enumerate(found.sets):
        _check_values(path, images, dataset, fitted)
        labels = targets(path, stored_labels, dataset)
        if len(images) != len(labels):
            raise UserError(
                f"{path}: {len(images)} images but {len(labels)} labels: take another file."
            )
        file = os.path.join(workdir, _file_name(Path(path), found, number))
        export.check_is_free(file, images, labels)
        imported[file] = images, labels
    for file, (images, labels) in imported.items():
        export.write_distilled(file, images, labels, description)
    written = list(imported)
    (console or Console()).outcome(*_words(path, found, dataset, fitted, written))
    return written


def preprocess_name(layout: str, path: Path, dataset: str, otherwise: str) -> str:
    """The preprocessing that a layout's makers use for a data set; `otherwise` if unknown."""
    if layout in _USUAL_PREPROCESS:
        return sets.facts(dataset).preprocess_by.get(layout, _USUAL_PREPROCESS[layout])
    return preprocess_in_name(path) or otherwise


def targets(path: str, labels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Labels (S, C) float32: class numbers (S,) become one-hot minus 1/C, (S, C) stay as they are.

    Raises:
        UserError: labels of another shape or type, or for other classes.
    """
    classes = dataset.num_classes
    if labels.ndim == 2 and labels.shape[1] == classes and labels.dtype.kind in "fiub":
        with np.errstate(over="ignore"):
            found = labels.astype(np.float32)
        if not np.isfinite(found).all():
            raise UserError(f"{path}: labels with NaN or inf: take another file.")
        return found
    whole = labels.ndim == 1 and labels.dtype.kind in "iu"
    if whole and len(labels) and labels.min() >= 0 and labels.max() < classes:
        return (np.eye(classes)[labels] - 1 / classes).astype(np.float32)
    held = f", {labels.min()} to {labels.max()}" if labels.ndim == 1 and len(labels) else ""
    raise UserError(
        f"{path}: labels are {labels.dtype} of shape {labels.shape}{held}; {dataset.name} takes "
        f"(S, {classes}), or (S,) class numbers below {classes}: set --config.dataset.name."
    )


def _check_values(path: str, images: np.ndarray, dataset: Dataset, fitted: Preprocess) -> None:
    """Raises UserError if the pixel values cannot come from the preprocessing `fitted`."""
    numbers = images.dtype.kind in "fiub"
    if not numbers or not len(images) or not np.isfinite(images).all():
        raise UserError(
            f"{path}: no images, or images with NaN, inf or no numbers: take another file."
        )
    typical = preprocess.apply(fitted, dataset.train_images[:_SAMPLE])
    low, high = float(images.min()), float(images.max())
    finding = f"{path}: pixel values from {low:.3g} to {high:.3g}"
    if low >= 0 and high <= 1 and typical.min() < -0.1:
        raise UserError(
            f"{finding} look like pixels in [0, 1], not like preprocess={fitted.name}: put them "
            f"through it first, or take --config.preprocess=none with --layout=kip."
        )
    if low >= 0 and high > 20:
        raise UserError(
            f"{finding} look like pixels in 0..255, not like preprocess={fitted.name}: put them "
            f"through it first."
        )
    size, usual = (float(np.sqrt(np.mean(np.square(values)))) for values in (images, typical))
    if not usual / _FAR < size < usual * _FAR:
        raise UserError(
            f"{finding}, root mean square {size:.3g}; {dataset.name} with preprocess={fitted.name} "
            f"has {usual:.3g}: take the --layout or the data set that the file was made with."
        )


def _made_with_mirror_images(found: Found, dataset: Dataset) -> bool:
    """FRePo's sets of colour images are, but for those of ten or more per class of CIFAR-100."""
    per_class = len(found.sets[0][0]) // dataset.num_classes
    many = dataset.name == "cifar100" and per_class >= 10
    return dataset.mirrorable and dataset.image_shape[2] == 3 and not many


def _file_name(path: Path, found: Found, number: int) -> str:
    stem = path.stem.replace("labels", "images") if found.layout == "mtt" else path.stem
    return f"{stem}_{number}.npz" if len(found.sets) > 1 else f"{stem}.npz"


def _words(
    path: str, found: Found, dataset: Dataset, fitted: Preprocess, written: list[str]
) -> tuple[str, list[tuple[str, str]]]:
    sizes = ", ".join(str(len(images)) for images, _ in found.sets)
    reg = f" --config.reg={found.reg:g}" if found.reg is not None else ""
    quoted = shlex.quote(written[0])
    kernel = "".join(
        f" --config.kernel.{name}={value}" for name, value in _KERNELS.get(found.layout, {}).items()
    )
    if found.layout == "frepo" and _made_with_mirror_images(found, dataset):
        kernel += " --config.kernel.mirrored=True"
    command = f"--mode=evaluate --distilled={quoted} --config.preprocess={fitted.name}{reg}{kernel}"
    return f"imported {path}: layout {found.layout}, {sizes} images of {dataset.name}", [
        ("preprocessing", fitted.name),
        *(("distilled set", name) for name in written),
        ("evaluate with", command),
    ]
