"""`--mode=figures`: figures of runs and transfers, as PNG and SVG in their folders.

Nothing is computed again: images come from the distilled sets, accuracies from the run's own
evaluations.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kip_flax import algorithms, export
from kip_flax.algorithms import base
from kip_flax.modes.figures import draw
from kip_flax.modes.figures.draw import ShownSet
from kip_flax.modes.transfer import ladder
from kip_flax.modes.transfer.table import TABLE
from kip_flax.runs.folder import RunFolder, folder_of_all, named_folders
from kip_flax.runtime import files
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

FOLDER = "figures"
_STARTS = {"real": "natural images", "noise": "noise", "set": "images of another set"}


@dataclass(frozen=True, eq=False)
class ShownRun:
    """A run as figures show it.

    Attributes:
        sets: in the order of the steps, the initial images first.
        class_names: C names.
        evaluations: rows of `step`, `accuracy` (0 to 1) and `mse`.
        split: the images that were evaluated, 'test' or 'validation'.
    """

    sets: list[ShownSet]
    class_names: tuple[str, ...]
    evaluations: list[dict[str, float]]
    split: str


def write_figures(workdirs: str, console: Console | None = None) -> list[Path]:
    """Writes the figures of each folder into its `figures`, and prints the paths.

    A run gets `images` (the last set), `rows` (first images above learned ones, one per class),
    `learning.gif` and, with three evaluations or more, `curve`. A transfer with a ladder gets
    `worth`. Several runs also get `rows` of all of them, in `figures` beside them.

    Args:
        workdirs: folders of runs or transfers, separated by commas.

    Returns:
        Paths of the files.

    Raises:
        UserError: a folder is named twice or not at all, or holds neither a run with sets nor a
            transfer with a ladder; the runs are of different data; or a file cannot be written.
    """
    folders = named_folders(workdirs)
    # Mistakes are reported before the first file.
    found = [_read(folder) for folder in folders]
    runs = [run for run, _ in found if run is not None]
    together = rows_of(runs) if len(runs) > 1 else []
    written: list[Path] = []
    for folder, (run, worth) in zip(folders, found, strict=True):
        if worth is not None:
            written += _save(worth, folder / FOLDER / "worth")
        if run is not None:
            written += _write_run(run, folder / FOLDER)
    if together:
        beside = folder_of_all(folders)
        figure = draw.rows_figure(together, runs[0].class_names)
        written += _save(figure, beside / FOLDER / "rows")
    console = console or Console()
    for path in written:
        console.outcome(f"figure  {path}")
    return written


def read_run(workdir: Path) -> ShownRun:
    """The run in `workdir` as figures show it.

    Raises:
        UserError: there is no run, or it has no sets.
    """
    folder = RunFolder(workdir)
    result, config = folder.result(), folder.config()
    learned, start = _title(config), _STARTS[base.kind_of_start(config["support"]["init"])]
    evaluations = result.get("evaluations", [])
    accuracies = {int(row["step"]): row["accuracy"] for row in evaluations}
    found = [each for each in sorted(folder.distilled().items()) if each[0] in accuracies]
    if not found:
        raise UserError(f"{workdir} holds no distilled sets: --workdir names the folder of a run.")
    sets: list[ShownSet] = []
    for step, path in found:
        distilled = export.load_distilled(path)  # One at a time: each has its whitening, 75 MB.
        if not sets:  # Learned labels may have another largest value than at the start.
            first_classes = distilled.first_classes
            stated = export.FIRST_CLASSES in distilled.provenance
        shown = ShownSet(
            name=learned if step else start,
            pictures=np.clip(distilled.pictures(), 0, 1),
            labels=distilled.labels,
            first_classes=first_classes,
            accuracy=accuracies[step],
            norm_is_lost=distilled.norm_is_lost,
            step=step,
            stated=stated,
        )
        sets.append(shown)
    names = result.get("data", {}).get("class_names") or distilled.class_names
    return ShownRun(sets, tuple(names), evaluations, str(result.get("evaluated_on", "test")))


def rows_of(runs: Sequence[ShownRun]) -> list[ShownSet]:
    """The first set of each run, once if runs share it, followed by the last sets.

    Raises:
        UserError: the runs differ in their classes or the shape of images.
    """
    rows: list[ShownSet] = []
    shape = runs[0].sets[0].pictures.shape[1:]
    for run in runs:
        start, end = run.sets[0], run.sets[-1]
        if run.class_names != runs[0].class_names or start.pictures.shape[1:] != shape:
            raise UserError("runs of different data do not go into one figure: name them apart.")
        if not any(np.array_equal(start.pictures, row.pictures) for row in rows):
            rows.insert(sum(row.step == 0 for row in rows), start)
        if end is not start:
            rows.append(end)
    return rows


def _write_run(run: ShownRun, folder: Path) -> list[Path]:
    written = _save(draw.grid_figure(run.sets[-1]), folder / "images")
    written += _save(draw.rows_figure(rows_of([run]), run.class_names), folder / "rows")
    if len(run.evaluations) >= draw.FEWEST_FOR_CURVE:
        written += _save(draw.curve_figure(run.evaluations, run.split), folder / "curve")
    moving = folder / "learning.gif"
    files.write_bytes_atomic(moving, draw.animation(run.sets))
    return [*written, moving]


def _read(folder: Path) -> tuple[ShownRun | None, Figure | None]:
    """The run and the worth by a transfer that a folder holds; UserError if it holds neither."""
    worth = _worth_figure(folder / TABLE) if (folder / TABLE).is_file() else None
    if worth is None or RunFolder(folder).result_file.is_file():
        return read_run(folder), worth
    return None, worth


def _worth_figure(table: Path) -> Figure | None:
    """The figure of a transfer; None if it has no ladder and lies in the folder of a run."""
    try:
        ladders = ladder.ladders(list(json.loads(table.read_text(encoding="utf-8"))["rows"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {table} ({error}): move it away.") from None
    if ladders:
        return draw.worth_figure(ladders)
    if RunFolder(table.parent).result_file.is_file():
        return None
    raise UserError(
        f"the transfer in {table.parent} has no ladder: set transfer.ladder to two sizes or more."
    )


def _save(figure: Figure, stem: Path) -> list[Path]:
    written = []
    for kind in ("png", "svg"):
        path = stem.with_suffix(f".{kind}")
        files.write_bytes_atomic(path, draw.rendered(figure, kind))
        written.append(path)
    return written


def _title(config: dict[str, Any]) -> str:
    """The caption of a run's learned sets: 'KIP, learned labels'."""
    facts = algorithms.facts(config["algorithm"])
    if not facts.krr_loss:
        return facts.name
    labels = algorithms.known(config["algorithm"]).labels(config["support"]["learn_labels"])
    return f"{facts.name}, {labels} labels"
