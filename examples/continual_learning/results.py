"""The results: a file for each cell, a file with all figures, a table and a picture."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from examples.continual_learning.settings import MEMORIES
from examples.continual_learning.stream import CLASSES_A_STEP
from kip_flax import config as config_lib
from kip_flax.runtime import files
from kip_flax.runtime.errors import UserError


@dataclass(frozen=True)
class Cell:
    """One learner, on one memory, in one class order."""

    memory: str
    per_class: int
    learner: str
    order: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.memory}_{self.per_class}_{self.learner}_order{self.order}.json"


@dataclass(frozen=True)
class Cells:
    """The finished cells in a folder."""

    folder: Path

    def accuracies(self, cell: Cell, deciding: Mapping[str, Any]) -> list[float] | None:
        """The accuracies (0 to 1) after each step of a finished cell; None if it is not finished.

        Args:
            cell: the cell.
            deciding: the settings that the accuracies depend on, by dotted name.

        Raises:
            UserError: it was measured with other settings, or the file is broken.
        """
        path = self.folder / cell.file
        if not path.exists():
            return None
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            old, found = kept["deciding"], [float(value) for value in kept["accuracies"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read {path} ({error}): move it away.") from None
        config_lib.check_same(old, _as_stored(deciding), "experiment", str(path))
        return found

    def keep(
        self, cell: Cell, deciding: Mapping[str, Any], accuracies: list[float], seconds: float
    ) -> None:
        """Writes a finished cell."""
        content = {
            **asdict(cell),
            "accuracies": accuracies,
            "seconds": round(seconds, 1),
            "deciding": _as_stored(deciding),
        }
        files.write_json(self.folder / cell.file, content)


def _as_stored(deciding: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(deciding)))  # Tuples become lists.


@dataclass(frozen=True)
class Curve:
    """Accuracy by step of a learner on a memory, over the class orders.

    Attributes:
        memory, per_class, learner: as in `Cell`.
        orders: the numbers of the class orders.
        accuracies: in %, a row for each order, a column for each step.
    """

    memory: str
    per_class: int
    learner: str
    orders: list[int]
    accuracies: list[list[float]]

    @property
    def mean(self) -> list[float]:
        """Mean over the orders, in %, for each step."""
        return [float(value) for value in np.mean(self.accuracies, axis=0)]

    @property
    def deviation(self) -> list[float | None]:
        """Deviation over the orders (n - 1), in %, for each step; None for a single order."""
        if len(self.accuracies) < 2:
            return [None] * len(self.mean)
        return [float(value) for value in np.std(self.accuracies, axis=0, ddof=1)]

    @property
    def entries(self) -> list[str]:
        """'91.20 ± 0.53' for each step."""
        pairs = zip(self.mean, self.deviation, strict=True)
        return [f"{m:.2f}" + ("" if d is None else f" ± {d:.2f}") for m, d in pairs]


def curves(found: Mapping[Cell, list[float]]) -> list[Curve]:
    """The cells grouped by memory, number of images and learner, in order of appearance."""
    rows: dict[tuple[int, str, str], Curve] = {}
    for cell, accuracies in found.items():
        key = (cell.per_class, cell.learner, cell.memory)
        curve = rows.setdefault(key, Curve(cell.memory, cell.per_class, cell.learner, [], []))
        curve.orders.append(cell.order)
        curve.accuracies.append([100 * value for value in accuracies])
    return list(rows.values())


def above(found: Iterable[Curve], memory: str) -> list[Curve]:
    """What the other memories have above `memory`, in points, order by order.

    Accuracies differ more between class orders than between memories, so orders are compared one
    by one. Curves of other orders than those of `memory` are left out.
    """
    found = list(found)
    bases = {(c.per_class, c.learner): c for c in found if c.memory == memory}
    rows = []
    for curve in found:
        base = bases.get((curve.per_class, curve.learner))
        if base is None or curve is base or base.orders != curve.orders:
            continue
        gains = np.subtract(curve.accuracies, base.accuracies).tolist()
        rows.append(replace(curve, accuracies=gains))
    return rows


def table(found: Iterable[Curve]) -> str:
    """The curves as a markdown table."""
    found = list(found)
    steps = max((len(curve.mean) for curve in found), default=0)
    seen = [f"{CLASSES_A_STEP * step} classes" for step in range(1, steps + 1)]
    head = ["images per class", "learner", "memory", *seen, "orders"]
    rows = [
        [str(c.per_class), c.learner, c.memory, *c.entries, str(len(c.accuracies))] for c in found
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(found: list[Curve], settings: Mapping[str, Any], folder: Path) -> None:
    """Writes figures.json and curves.png; `settings` has 'on', 'test' or 'validation'."""
    rows = [asdict(c) | {"mean": c.mean, "deviation": c.deviation} for c in found]
    files.write_json(folder / "figures.json", {"settings": dict(settings), "curves": rows})
    on = "held-out" if settings["on"] == "validation" else "test"
    _draw(found, on, folder / "curves.png")


def _draw(found: list[Curve], on: str, path: Path) -> None:
    """A panel for each learner and number of images, a line for each memory, of its own colour.

    `on`: the images of the accuracies, 'test' or 'held-out'.
    """
    from matplotlib.figure import Figure

    from kip_flax.modes.figures.draw import rendered

    panels = list(dict.fromkeys((curve.per_class, curve.learner) for curve in found))
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (size, learner) in zip(grid, panels, strict=True):
        for curve in found:
            if (curve.per_class, curve.learner) == (size, learner):
                seen = CLASSES_A_STEP * np.arange(1, len(curve.mean) + 1)
                spread = [value or 0.0 for value in curve.deviation]
                colour = f"C{MEMORIES.index(curve.memory)}"
                style = {"marker": "o", "capsize": 3, "color": colour, "label": curve.memory}
                axes.errorbar(seen, curve.mean, spread, **style)
        axes.set_title(f"{learner}, {size} images per class", fontsize="medium")
        axes.set_xlabel("classes so far")
        axes.set_ylabel(f"{on} accuracy, %")
        axes.set_xticks(seen)
        axes.legend()
    files.write_bytes_atomic(path, rendered(figure, "png"))
