"""What a report tells of a run, gathered from the files in its folder; neither data nor kernel."""

import csv
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kip_flax import config, export, preprocess
from kip_flax.modes.report import sprites as report_sprites
from kip_flax.modes.report.sprites import Frame
from kip_flax.runs import history
from kip_flax.runs.folder import RunFolder
from kip_flax.runtime.errors import UserError

# Frames of files that were read before: a run adds one at each evaluation.
Frames = dict[tuple[str, int, bool], Frame]

_HISTORY = 1000  # Rows of history.csv in the charts: more are evenly thinned.
_ZCA_NOTE = (
    "ZCA whitening is undone for display. The norm of each image is lost in it: all are shown with "
    "the one that is typical of the training set, so contrast is not comparable between images."
)
_RAW_NOTE = (
    "The files hold no preprocessing to undo: values are shown as they are, from smallest to "
    "largest."
)


@dataclass(frozen=True)
class Facts:
    """One run.

    Attributes:
        workdir: its folder.
        result: what result.json holds; `evaluations` may lie before the last of the files.
        config, defaults: flat; `defaults` is empty where configs/default.py cannot be imported.
        history: rows of history.csv, at most a thousand.
        class_names: C names.
        image_shape: (H, W, C).
        size: S, images of the support; `rows` of them are shown.
        frames: the supports shown, ascending in steps; may be empty.
        palette: whether they are in 256 colours.
        note: on how the pictures came about; or empty.
        files: step -> path of its distilled set, of all that there are.
        analysis: what `RunFolder.analysis` gives for the last set, or None.
    """

    workdir: Path
    result: dict[str, Any]
    config: dict[str, Any]
    defaults: dict[str, Any]
    history: list[history.Row]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...]
    size: int
    rows: np.ndarray
    frames: tuple[Frame, ...]
    palette: bool
    note: str
    files: dict[int, Path]
    analysis: dict[str, Any] | None

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """Rows of `step`, `accuracy` (0 to 1), `mse`, in the order of the steps."""
        return self.result["evaluations"]

    @property
    def began_as(self) -> np.ndarray:
        """The class that each image shown began as; of runs with frames."""
        return self.frames[0].labels.argmax(axis=1)

    @property
    def split(self) -> str:
        """What the evaluations are on: 'test' images, or 'validation' ones."""
        return str(self.result.get("evaluated_on", "test"))

    @property
    def running(self) -> bool:
        """Whether the run says that it goes on."""
        return self.result["status"] == "running"


def gather(workdir: Path, frames: Frames) -> Facts:
    """Reads the folder of a run; `frames` remembers what was read of the distilled sets.

    Raises:
        UserError: there is no run in it, or a file of it is broken.
    """
    result = read_json(workdir / "result.json")
    flat = config.flatten(read_json(workdir / "config.json"))
    if not result.get("evaluations"):
        raise UserError(f"{workdir} holds no evaluated run yet: wait for its first evaluation.")
    files = distilled_files(workdir, [row["step"] for row in result["evaluations"]])
    data = result.get("data", {})
    names, shape, size = tuple(data.get("class_names", ())), tuple(data.get("image_shape", ())), 0
    shown: tuple[Frame, ...] = ()
    rows, palette, note = np.arange(0), False, ""
    if files:
        last = export.load_distilled(files[max(files)])
        names = names or _class_names(last)
        size, shape = len(last.images), last.images.shape[1:]
        plan = report_sprites.plan(sorted(files), size, shape, last.labels.shape[1])
        rows, palette = plan.rows, plan.palette
        shown = tuple(_frame(files[s], s, rows, palette, frames) for s in plan.steps)
        note = _RAW_NOTE if last.preprocess is None else _ZCA_NOTE if norm_is_lost(last) else ""
    found = RunFolder(workdir).analysis(files[max(files)]) if files else None
    logged = history.read(workdir)
    told = [logged[row] for row in report_sprites.spread(len(logged), _HISTORY)]
    return Facts(
        *(workdir, result, flat, defaults(), told, names, shape, size, rows),
        *(shown, palette, note, files, found),
    )


def norm_is_lost(distilled: export.Distilled) -> bool:
    """Whether the preprocessing divided each image by its own norm, which is gone."""
    return "image_norm" in (distilled.preprocess or {})


def distilled_files(workdir: Path, steps: list[float]) -> dict[int, Path]:
    """Evaluated step -> its distilled set, of those that the index lists and that are there."""
    folder = workdir / "distilled"
    try:
        with open(folder / "index.csv", encoding="utf-8", newline="") as file:
            names = {int(row["ckpt"]): row["URL"] for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {folder / 'index.csv'} ({error}): move it away.") from None
    if steps and names.keys() == {0, 1}:
        names[int(max(steps))] = names[1]  # Label Solve takes one step of many tiles.
    paths = {int(step): folder / names[int(step)] for step in steps if int(step) in names}
    return {step: path for step, path in paths.items() if path.is_file()}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; UserError if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} holds no run (no {path.name}): --workdir names the folder of one."
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): move it away.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object: move it away.")
    return content


def _frame(path: Path, step: int, rows: np.ndarray, palette: bool, frames: Frames) -> Frame:
    key = (str(path), os.stat(path).st_mtime_ns, palette)
    if key not in frames:
        distilled = export.load_distilled(path)
        png = report_sprites.encode(pictures(distilled)[rows], palette)
        frames[key] = Frame(step, png, distilled.labels[rows])
    return frames[key]


def pictures(distilled: export.Distilled) -> np.ndarray:
    """Images of a set in about [0, 1], to look at; stretched where it has no preprocessing."""
    images = distilled.images
    if distilled.preprocess is not None:
        return preprocess.invert(preprocess.from_arrays(distilled.preprocess), images)
    low, high = images.min(), images.max()
    return (images - low) / max(high - low, 1e-9)


def _class_names(distilled: export.Distilled) -> tuple[str, ...]:
    names = (distilled.meta or {}).get("class_names", range(distilled.labels.shape[1]))
    return tuple(str(name) for name in names)


def defaults() -> dict[str, Any]:
    """Default fields, flat; empty where configs/default.py, no part of the package, is missing."""
    try:
        default = importlib.import_module("configs.default")
    except ImportError:
        return {}
    return config.flatten(default.get_config())
