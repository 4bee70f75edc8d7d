"""The table of a comparison: its lines, the best of each column, its ties, and its text."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kip_flax import algorithms
from kip_flax.modes.compare import published
from kip_flax.modes.compare.entries import Made
from kip_flax.modes.transfer.table import DIVERGED

BEST, TIE = "best", "tie"
_UNKNOWN = "\N{EN DASH}"
LEGEND = (
    "Test accuracy in %. Bold: the best of its column among sets of as many images; ≈: no more "
    "than one deviation (the larger of both) below it, a tie. Deviations are over seeds, or over "
    "draws; ± in brackets is sqrt(p (1 - p) / n) over n test images, where there is one figure."
)
SECOND_HAND = "* as others report it; not read at the source."


@dataclass(eq=False)
class Line:
    """One set, and its measured accuracies.

    Attributes:
        made: how the set was made.
        preprocess: name of its preprocessing.
        images_per_class: their number for each class.
        size: total number of images.
        bytes: size of its images and labels as float32.
        figures: by network, rows with `mean`, `std` and `accuracies` (0 to 1).
        pictures: (S, H, W, C) in about [0, 1].
        num_test: number of test images.
        diverged: networks whose training diverged.
        marks: by network, 'best' or 'tie'.
    """

    made: Made
    preprocess: str
    images_per_class: float
    size: int
    bytes: int
    figures: dict[str, dict[str, Any]]
    pictures: np.ndarray
    num_test: int
    diverged: frozenset[str] = frozenset()
    marks: dict[str, str] = field(default_factory=dict)


def deviation(row: dict[str, Any], num_test: int) -> float:
    """Deviation over seeds or draws; sqrt(p (1 - p) / n) for one accuracy p on n test images."""
    if row["std"] is not None:
        return row["std"]
    return math.sqrt(row["mean"] * (1 - row["mean"]) / num_test)


def mark(lines: Sequence[Line], networks: Sequence[str]) -> None:
    """Marks the best line of every network, and its ties, among sets of the same size."""
    for size in {line.size for line in lines}:
        for network in networks:
            there = [x for x in lines if x.size == size and network in x.figures]
            if not there:
                continue
            best = max(there, key=lambda line: line.figures[network]["mean"])
            top = best.figures[network]
            for line in there:
                row = line.figures[network]
                most = max(deviation(top, best.num_test), deviation(row, line.num_test))
                if line is best:
                    line.marks[network] = BEST
                elif top["mean"] - row["mean"] <= most:
                    line.marks[network] = TIE


def accuracy(line: Line, network: str) -> str:
    """'86.24 ± 1.60', '93.87 (± 1.27)' for a single accuracy, 'diverged', or '' if not measured."""
    row = line.figures.get(network)
    if row is None:
        return DIVERGED if network in line.diverged else ""
    spread = f"± {100 * deviation(row, line.num_test):.2f}"
    return f"{100 * row['mean']:.2f} {spread if row['std'] is not None else f'({spread})'}"


def seconds(line: Line) -> str:
    """'4', or a dash if not known."""
    return _UNKNOWN if line.made.seconds is None else f"{line.made.seconds:.0f}"


def images_per_class(line: Line) -> str:
    """Images per class: '10', or '2.5' if not whole."""
    return f"{line.images_per_class:g}"


def published_words(line: Line, dataset: str) -> str:
    """'network 91.7, kernel 97.3*', or a dash."""
    found = published.accuracy(line.made.method, dataset, line.images_per_class)
    figures = [f"{f.measured_by} {value:g}{'' if f.first_hand else '*'}" for value, f in found]
    return ", ".join(figures) or _UNKNOWN


def columns(networks: Sequence[str]) -> tuple[str, ...]:
    """The headings of the table."""
    first = ("Images per class", "Method", "Labels", "Preprocessing")
    return (*first, *networks, "Published", "Made in", "Seconds", "Bytes")


def cells(line: Line, networks: Sequence[str], dataset: str) -> list[str]:
    """The cells of one line, without marks."""
    accuracies = [accuracy(line, network) for network in networks]
    last = [
        published_words(line, dataset),
        line.made.budget or _UNKNOWN,
        seconds(line),
        f"{line.bytes:,}",
    ]
    return [
        images_per_class(line),
        line.made.name,
        line.made.labels or _UNKNOWN,
        line.preprocess,
        *accuracies,
        *last,
    ]


def ordered(lines: Sequence[Line]) -> list[Line]:
    """The lines sorted by number of images, otherwise in the given order."""
    return sorted(lines, key=lambda line: line.size)


def markdown(lines: Sequence[Line], networks: Sequence[str], dataset: str) -> str:
    """The table in markdown: **best**, ≈ tie."""
    rows = [columns(networks), ["---"] * len(columns(networks))]
    for line in ordered(lines):
        row = cells(line, networks, dataset)
        for place, network in enumerate(networks, 4):
            if line.marks.get(network) == BEST:
                row[place] = f"**{row[place]}**"
            elif line.marks.get(network) == TIE:
                row[place] = f"≈ {row[place]}"
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def comma_separated(lines: Sequence[Line], networks: Sequence[str]) -> str:
    """The table as csv: for each network mean and deviation (0 to 1) and mark."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ["images_per_class", "method", "labels", "preprocess", "budget", "seconds", "bytes"]
    for network in networks:
        heads += [f"{network} mean", f"{network} std", f"{network} mark"]
    writer.writerow([*heads, "file"])
    for line in ordered(lines):
        row = [
            images_per_class(line),
            line.made.name,
            line.made.labels,
            line.preprocess,
            line.made.budget,
        ]
        row += ["" if line.made.seconds is None else f"{line.made.seconds:.3f}", str(line.bytes)]
        for network in networks:
            found = line.figures.get(network)
            if found is None:
                row += ["", "", accuracy(line, network)]
                continue
            std = "" if found["std"] is None else f"{found['std']:.6g}"
            row += [f"{found['mean']:.6g}", std, line.marks.get(network, "")]
        writer.writerow([*row, line.made.file])
    return text.getvalue()


def notes(lines: Sequence[Line], dataset: str) -> list[str]:
    """Notes on published accuracies: source and recipe, and whether any are second-hand."""
    found: list[str] = []
    for line in ordered(lines):
        recipe = algorithms.facts(line.made.algorithm).published_recipe
        for _, one in published.accuracy(line.made.method, dataset, line.images_per_class):
            note = f"Published, {one.method}: {one.source}; {recipe(int(line.images_per_class))}."
            if note not in found:
                found.append(note)
    if any("*" in published_words(line, dataset) for line in lines):
        found.append(SECOND_HAND)
    return found
