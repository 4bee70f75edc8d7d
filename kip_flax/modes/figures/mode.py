"""`--mode=figures`: what can be drawn of runs and transfers, as PNG and SVG in their folders.

Nothing is computed again: pictures come from the distilled sets, accuracies from the run's own
evaluations.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kip_flax import config as config_lib
from kip_flax import export
from kip_flax.algorithms import _methods as methods
from kip_flax.modes.figures import draw as figures
from kip_flax.modes.figures.draw import Shown
from kip_flax.modes.report import facts as report_facts
from kip_flax.modes.transfer import ladder
from kip_flax.modes.transfer.table import TABLE
from kip_flax.runtime import files
from kip_flax.runtime.console import Console
from kip_flax.runtime.errors import UserError

FOLDER = "figures"


def write_figures(workdirs: str, console: Console | None = None) -> list[Path]:
    """Writes what can be drawn of each folder into its `figures`, and tells the paths.

    Of a run: `images` (the last set), `rows` (natural images above learned ones, one per class),
    `learning.gif` and, of three evaluations or more, `curve`; of a transfer with a ladder: `worth`.
    Of several runs also `rows` of all of them, in `figures` beside them.

    Args:
        workdirs: folders of runs or transfers, separated by commas.

    Returns:
        The files.

    Raises:
        UserError: a folder holds neither a run nor a transfer, or a file cannot be written.
    """
    folders = [Path(os.path.abspath(os.path.expanduser(name))) for name in workdirs.split(",")]
    written: list[Path] = []
    runs: list[list[Shown]] = []
    for folder in folders:
        if (folder / TABLE).is_file():
            written += _save(_worth_figure(folder / TABLE), folder / FOLDER / "worth")
            continue
        run = read_run(folder)
        runs.append(run)
        written += _figures_of(folder, run)
    if len(runs) > 1:
        beside = Path(os.path.commonpath([folder.parent for folder in folders]))
        figure = figures.rows_figure(rows_of(runs), _names(folders[0]))
        written += _save(figure, beside / FOLDER / "rows")
    console = console or Console()
    for path in written:
        console.outcome(f"figure  {path}")
    return written


def _figures_of(folder: Path, run: Sequence[Shown]) -> list[Path]:
    target, facts = folder / FOLDER, report_facts.gather(folder, {})
    written = _save(figures.grid_figure(run[-1]), target / "images")
    written += _save(figures.rows_figure(rows_of([run]), facts.class_names), target / "rows")
    if len(facts.evaluations) >= figures.FEWEST_FOR_CURVE:
        curve = figures.curve_figure(facts.evaluations, facts.split)
        written += _save(curve, target / "curve")
    files.write_bytes_atomic(target / "learning.gif", figures.animation(run))
    return [*written, target / "learning.gif"]


def read_run(folder: Path) -> list[Shown]:
    """The distilled sets of a run, in the order of the steps, as the figures show them.

    Raises:
        UserError: there is no run, or it has no sets.
    """
    result = report_facts.read_json(folder / "result.json")
    flat = config_lib.flatten(report_facts.read_json(folder / "config.json"))
    accuracies = {int(row["step"]): row["accuracy"] for row in result.get("evaluations", [])}
    found = report_facts.distilled_files(folder, list(accuracies))
    if not found:
        raise UserError(f"{folder} holds no distilled sets: --workdir names the folder of a run.")
    shown = []
    for step, path in sorted(found.items()):
        distilled = export.load_distilled(path)
        name = _title(flat) if step else "natural images"
        lost = report_facts.norm_is_lost(distilled)
        pictures = np.clip(report_facts.pictures(distilled), 0, 1)
        shown.append(Shown(name, pictures, distilled.labels, accuracies[step], lost, step))
    return shown


def rows_of(runs: Sequence[Sequence[Shown]]) -> list[Shown]:
    """First sets, each once where runs share it, above last ones: natural, then what was learned.

    Raises:
        UserError: the runs are of other classes or of images of another shape.
    """
    rows: list[Shown] = []
    for run in runs:
        if any(
            run[0].pictures.shape[1:] != row.pictures.shape[1:]
            or run[0].labels.shape[1] != row.labels.shape[1]
            for row in rows
        ):
            raise UserError("runs of different data do not go into one figure: name them apart.")
        start = run[0]
        if not any(np.array_equal(start.pictures, row.pictures) for row in rows):
            rows.insert(sum(row.step == 0 for row in rows), start)
        if len(run) > 1:
            rows.append(run[-1])
    return rows


def _worth_figure(path: Path) -> Figure:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path} ({error}): move it away.") from None
    if not (ladders := ladder.ladders(rows)):
        raise UserError("the transfer has no ladder: set transfer.ladder to two sizes or more.")
    return figures.worth_figure(ladders)


def _save(figure: Figure, stem: Path) -> list[Path]:
    written = []
    for kind in ("png", "svg"):
        path = stem.with_suffix(f".{kind}")
        files.write_bytes_atomic(path, figures.rendered(figure, kind))
        written.append(path)
    return written


def _names(folder: Path) -> tuple[str, ...]:
    return report_facts.gather(folder, {}).class_names


def _title(config: dict[str, Any]) -> str:
    name = methods.name(config["algorithm"])
    if methods.is_kip(config["algorithm"]):
        return f"{name}, {config_lib.labels_are(config)} labels"
    return name
