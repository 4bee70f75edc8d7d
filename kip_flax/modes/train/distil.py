"""`distill`, for notebooks: a distilled set from arrays or from a configuration."""

from __future__ import annotations

import contextlib
import copy
import importlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from kip_flax import __version__, export
from kip_flax import config as config_lib
from kip_flax.data import datasets, readers
from kip_flax.export import Distilled
from kip_flax.modes.train import mode
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime import files, multihost
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.waiting import Stopped

_DEFAULT = "configs.default"  # In a copy of the repository, not in an installed package.


def distill(
    images: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    config: ConfigDict | None = None,
    fields: Mapping[str, Any] | None = None,
    workdir: str | None = None,
) -> Distilled:
    """Distils labelled images, as `--mode=train` does, and returns the set of the last step.

    Progress goes to stdout. Sums and solves use float64 as in a run, whatever `jax_enable_x64` is.

    Args:
        images: uint8 (n, H, W) or (n, H, W, C), C = 1 or 3; None: those that `config` names.
        labels: (n,), numbers from 0 or names of classes.
        test: images and labels to test on; None: a fifth of each class is held out.
        config: an experiment, such as `get_config()` of a file in configs/; None: the default, with
            one image per class and at most as many targets a step as there are images.
        fields: fields to change in the configuration, by dotted name: {'num_steps': 100}.
        workdir: folder for checkpoints, report and sets, from which the same call resumes; None
            keeps nothing.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM stopped the run, which is saved in `workdir`.
        UserError: images, labels and fields do not fit together, or as in `train_and_evaluate`.
    """
    if (images is None) != (labels is None):
        raise UserError("images and labels go together: give both, or a config and neither.")
    if images is None and config is None:
        raise UserError("there is nothing to distil: give images and labels, or a config.")
    if config is not None and not isinstance(config, ConfigDict):
        raise UserError(f"config is a {type(config).__name__}: give a ConfigDict, as of configs/.")
    arrays = None if images is None or labels is None else _arrays(images, labels, test)
    experiment = _default() if config is None else copy.deepcopy(config)
    given = dict(fields or {})
    _update(experiment, given)
    if config is None and arrays is not None:
        known = _known_labels(arrays, experiment.dataset.classes)
        if "support.size" not in given:
            experiment.support.size = max(1, len(np.unique(known)))
        if "batch_size" not in given:
            left = _left(known, "labels" in arrays, experiment)
            experiment.batch_size = min(experiment.batch_size, left)
    with _folder(workdir) as folder:
        with _kept(arrays, folder) as path:
            if path is not None:
                _update(experiment, {"dataset.name": "npz", "dataset.data_dir": str(path)})
            config_lib.validate(experiment)
            console = _WithoutPaths(folder) if workdir is None else None
            try:
                mode.train_and_evaluate(experiment, folder, console)
            except Stopped:
                raise KeyboardInterrupt("the run was stopped before its first step") from None
        run = RunFolder(folder)
        if run.result()["status"] != "finished":
            raise KeyboardInterrupt("the run was stopped before its last step")
        sets = run.distilled()
        return export.load_distilled(sets[max(sets)])


class _WithoutPaths(Console):
    """Leaves out what a folder that will be gone does not keep: paths, and how to go on."""

    def __init__(self, folder: str):
        super().__init__(silent=not multihost.is_first())
        self._folder = folder

    def _block(self, text: str, rows: Sequence[tuple[str, str]]) -> None:
        text = text.replace(f" in {self._folder}", "")
        if self._folder not in text and "the same command goes on" not in text:
            super()._block(text, [row for row in rows if self._folder not in row[1]])


@contextlib.contextmanager
def _kept(arrays: dict[str, np.ndarray] | None, folder: str) -> Iterator[Path | None]:
    """The file of the arrays in the folder of the run; None without arrays.

    It does not stay if the run is refused or stopped before its first checkpoint.

    Raises:
        UserError: the file is there with other arrays.
    """
    if arrays is None:
        yield None
        return
    path = Path(folder) / "images.npz"
    if path.exists():
        known = files.read_arrays(path)
        if known.keys() != arrays.keys() or not all(
            _is_same(known[name], array) for name, array in arrays.items()
        ):
            raise UserError(f"{path} holds other images or labels: give those, or another workdir.")
        yield path
        return
    files.write_arrays(path, arrays)
    try:
        yield path
    except BaseException:  # Ctrl-C too: the next call may have other images.
        if not any(RunFolder(folder).checkpoints.glob("*")):
            path.unlink(missing_ok=True)
        raise


def _is_same(known: np.ndarray, given: np.ndarray) -> bool:
    """Whether entries agree, and types where they decide; those of labels and names do not."""
    is_image = given.ndim > 1
    return np.array_equal(known, given) and not (is_image and known.dtype != given.dtype)


def _arrays(
    images: ArrayLike, labels: ArrayLike, test: tuple[ArrayLike, ArrayLike] | None
) -> dict[str, np.ndarray]:
    """The arrays of a file of the data set 'npz'."""
    if test is not None and (not isinstance(test, tuple | list) or len(test) != 2):
        raise UserError("test is no pair: give images and labels to test on.")
    given = [(images, labels), *([] if test is None else [test])]
    parts = [(_pixels(x), _flat_labels(y)) for x, y in given]
    found: dict[str, np.ndarray] = {}
    named = [part[1].dtype.kind == "U" for part in parts]
    if any(named) != all(named):
        raise UserError("labels are names in one part and numbers in the other: give one kind.")
    if any(named):
        names = np.unique(np.concatenate([y for _, y in parts]))
        parts = [(x, np.searchsorted(names, y)) for x, y in parts]
        found["class_names"] = names
    if test is None:
        return found | {"images": parts[0][0], "labels": parts[0][1]}
    for prefix, (x, y) in zip(("train_", "test_"), parts, strict=True):
        found |= {f"{prefix}images": x, f"{prefix}labels": y}
    return found


def _pixels(images: ArrayLike) -> np.ndarray:
    try:
        found = np.asarray(images)
    except ValueError:
        found = np.array(None)
    if found.dtype.kind == "O":
        raise UserError("images are no array: give images of one size, (n, H, W) or (n, H, W, C).")
    return found


def _flat_labels(labels: ArrayLike) -> np.ndarray:
    """Labels (n,) as numbers or text, whatever kind of column they come from."""
    found = readers.flat(np.asarray(labels))
    if found.ndim != 1:
        raise UserError(
            f"labels have the shape {found.shape}: give one for each image (of one-hot labels: "
            f"labels.argmax(1))."
        )
    if found.dtype.kind == "T":  # Text of variable length, of NumPy 2.
        found = found.astype(str)
    entries = found.tolist()
    if None in entries or len({isinstance(each, str | bytes) for each in entries}) > 1:
        raise UserError("labels are names and numbers, or some are missing: give one kind.")
    try:
        if found.dtype.kind == "O":  # Of a table, whose entries say what they are.
            found = np.array(entries)
        return np.char.decode(found, "utf-8") if found.dtype.kind == "S" else found
    except ValueError:
        raise UserError("labels are neither numbers nor names: give one kind.") from None


def _default() -> ConfigDict:
    try:
        found = importlib.import_module(_DEFAULT).get_config()
        lacking = sorted(config_lib.FIELDS.keys() - config_lib.flatten(found).keys())
    except Exception as error:  # A file of that name may belong to another project.
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing in (_DEFAULT, _DEFAULT.partition(".")[0]):
            raise UserError(
                "there is no configs/default.py here, which lies in a copy of the repository: give "
                "a config."
            ) from None
        raise UserError(f"configs/default.py here fails ({error!r}): give a config.") from error
    if lacking:
        raise UserError(
            f"configs/default.py is not that of kip_flax {__version__} (it lacks {lacking[0]}): "
            f"give a config."
        )
    return found


def _known_labels(arrays: dict[str, np.ndarray], classes: tuple[int | str, ...]) -> np.ndarray:
    """The labels of the training images, of the chosen classes alone if there are any."""
    labels = arrays["labels"] if "labels" in arrays else arrays["train_labels"]
    if not classes:
        return labels
    names = [str(name) for name in arrays.get("class_names", ())]
    numbers = [names.index(each) if each in names else each for each in classes]
    return labels[np.isin(labels, [number for number in numbers if isinstance(number, int)])]


def _left(labels: np.ndarray, tests_held_out: bool, experiment: ConfigDict) -> int:
    """The number of training images that are left when test and validation images are held out."""
    options = experiment.dataset
    shares = [options.test_fraction] if tests_held_out else []
    shares += [options.validation] if options.validation else []
    counts = np.unique(labels, return_counts=True)[1]
    for share in shares:
        counts = np.array([n - datasets.held_out_of(int(n), share) for n in counts])
    return max(1, int(counts.sum()))


def _update(experiment: ConfigDict, fields: Mapping[str, Any]) -> None:
    if unknown := sorted(set(fields) - set(config_lib.flatten(experiment))):
        raise UserError(f"fields: there is no {unknown[0]!r}: configs/default.py has them all.")
    try:
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in fields.items()}
        experiment.update_from_flattened_dict(plain)
    except (KeyError, TypeError, ValueError) as error:
        message = " ".join(str(error.args[0] if error.args else error).split())
        raise UserError(f"fields: {message[:300]}") from None


@contextlib.contextmanager
def _folder(workdir: str | None) -> Iterator[str]:
    if workdir is not None:
        yield str(RunFolder.make(workdir).path)
        return
    with tempfile.TemporaryDirectory(prefix="kip_flax_") as folder:
        yield folder
