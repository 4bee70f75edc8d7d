"""`--mode=export`: a distilled set as parquet with a card, PyTorch files, PNGs and npz."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from kip_flax import config as config_lib
from kip_flax import export, preprocess
from kip_flax.data import sets
from kip_flax.export import Distilled, card, parquet, pictures, torch_files
from kip_flax.preprocess import Preprocess
from kip_flax.runs import setup
from kip_flax.runtime import files
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

PARQUET = "data/train-00000-of-00001.parquet"
CARD = "README.md"


def export_file(
    path: str, workdir: str, console: Console | None = None, config: ConfigDict | None = None
) -> list[str]:
    """Writes the set in `path` in all formats below `workdir`, and prints the paths.

    Args:
        path: the npz of a distilled set of ours.
        workdir: a folder that holds no other set.
        config: names the data to fit the preprocessing on again if its side file is lost; None:
            the side file must be there.

    Returns:
        The files written, relative to `workdir`.

    Raises:
        UserError: the file is broken, not ours or without its preprocessing, or the folder holds
            files of another set.
    """
    distilled = export.load_distilled(path)
    with tempfile.TemporaryDirectory(prefix="kip_flax_") as folder:
        if config is not None and distilled.meta is not None and distilled.preprocess is None:
            distilled = _completed(distilled, config, Path(folder))
        fitted = _preprocessing(distilled)
        written = _write(distilled, fitted, Path(workdir).expanduser())
    (console or Console()).outcome(*_words(distilled, path, workdir))
    return written


def _completed(distilled: Distilled, config: ConfigDict, folder: Path) -> Distilled:
    """The same set, written to `folder` with its preprocessing, which is fitted again."""
    config_lib.validate(config)
    fitted = setup.preprocessing_of(distilled, config, setup.load(config), config.preprocess)
    description = export.Description(
        fitted, distilled.class_names, distilled.kernel, distilled.provenance
    )
    path = folder / distilled.path.name
    export.write_distilled(path, distilled.images, distilled.labels, description)
    return export.load_distilled(path)


def _preprocessing(distilled: Distilled) -> Preprocess:
    if distilled.meta is None:
        raise UserError(
            f"{distilled.path} was written by another program: bring it into our form first, with "
            f"--mode=import."
        )
    if distilled.preprocess is None:
        side = distilled.meta.get("preprocess_file")
        raise UserError(
            f"{distilled.path} lacks its preprocessing: put the file {side}, which was written "
            f"with it, beside it again, or name the data by --config and "
            f"--config.dataset.data_dir: it is fitted again."
        )
    return preprocess.from_arrays(distilled.preprocess)


def _write(distilled: Distilled, fitted: Preprocess, folder: Path) -> list[str]:
    if not files.is_utf8(distilled.path.name):
        raise UserError(f"{distilled.path} has a name that is no UTF-8: rename it.")
    dataset, names = distilled.provenance.get("dataset", "unknown"), distilled.class_names
    classes = distilled.labels.argmax(axis=1)
    shown = preprocess.invert(fitted, distilled.images)
    pixels = pictures.to_uint8(shown)
    beside = _card_files(distilled, dataset)
    tensors = _tensors(distilled, _normalised(shown, dataset, fitted), beside)
    copies = [path for path in (distilled.path, distilled.preprocess_file) if path is not None]
    pngs = [f"png/{name}" for name in pictures.file_names(classes, names)]
    made = [*tensors, PARQUET, *pngs, CARD]
    written = [*(path.name for path in copies), *made]
    _check_folder(folder, written, made)
    export.check_is_free(folder / distilled.path.name, distilled.images, distilled.labels)
    for path in copies:
        files.write_bytes_atomic(folder / path.name, path.read_bytes())
    for name, content in tensors.items():
        torch_files.write(folder / name, content)
    parquet.write(folder / PARQUET, distilled.images, distilled.labels, pixels, names)
    pictures.write_folders(folder / "png", pixels, classes, names)
    text = card.write_card(distilled, dataset, beside)
    files.write_bytes_atomic(folder / CARD, text.encode())
    return written


def _card_files(distilled: Distilled, dataset: str) -> card.Files:
    """Names of the files that the data-set card explains."""
    parts = sets.field_name(dataset), distilled.kernel.get("architecture", "imported")
    stem = "_".join(pictures.part_of_name(part) for part in parts)  # They name a file.
    images_per_class = len(distilled.labels) // distilled.labels.shape[1]
    return card.Files(
        npz=distilled.path.name,
        whole="torch/distilled.pt",
        images="torch/images.pt",
        labels="torch/labels.pt",
        result=f"torch/res_{stem}_{images_per_class}ipc.pt",
    )


def _normalised(shown: np.ndarray, dataset: str, fitted: Preprocess) -> np.ndarray:
    """Pictures (S, H, W, channels) in about [0, 1], normalised as the field's evaluators do it."""
    field = sets.field_preprocess(dataset, fitted)
    return ((shown - field.mean) / field.std).astype(np.float32)


def _tensors(distilled: Distilled, normalised: np.ndarray, names: card.Files) -> dict[str, Any]:
    """Content of the PyTorch files, by name."""
    classes = distilled.labels.argmax(axis=1)
    whole = {
        "images": _channels_first(distilled.images),
        "labels": distilled.labels,
        "classes": classes,
        "class_names": list(distilled.class_names),
        "preprocess": distilled.preprocess_name or "none",
    }
    images = _channels_first(normalised)
    return {
        names.whole: whole,
        names.images: images,
        names.labels: distilled.labels,
        names.result: {"data": [[images, classes]], "accs_all_exps": {}},
    }


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _check_folder(folder: Path, written: list[str], made: list[str]) -> None:
    """Raises UserError if `folder` holds files of another set, which would mix with this one's.

    Args:
        folder: the folder of the export.
        written: names of all files, the set itself first. Without it in `folder` it cannot be known
            whose the others are.
        made: those that are made from it, whose names other sets' have too.
    """
    below = [path for part in ("data", "png", "torch") for path in (folder / part).rglob("*.*")]
    for path in sorted([*folder.glob("*.npz"), *below]):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in written and not name.endswith(".tmp"):
            raise UserError(f"{folder} holds {name} of another set: take an empty --workdir.")
    text = folder / CARD
    if text.is_file() and not text.read_bytes().startswith(b"---\n"):
        raise UserError(f"{folder} holds {CARD}, which is no card: take an empty --workdir.")
    there = [name for name in made if (folder / name).is_file()]
    if there and not (folder / written[0]).is_file():
        raise UserError(
            f"{folder} holds {there[0]}, without {written[0]}: take an empty --workdir."
        )


def _words(distilled: Distilled, path: str, workdir: str) -> tuple[str, list[tuple[str, str]]]:
    heading = f"{len(distilled.images)} images, {distilled.labels.shape[1]} classes"
    parts = {
        "data-set card": CARD,
        "parquet": PARQUET,
        "PyTorch": "torch",
        "pictures": "png",
        "NumPy": distilled.path.name,
    }
    rows = [(name, os.path.join(workdir, part)) for name, part in parts.items()]
    return f"exported {path}: {heading}", rows
