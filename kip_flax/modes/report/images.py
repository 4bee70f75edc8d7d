"""The parts of the page with pictures: cards, slider, neighbours, rules of the style sheet.

A tile is a window onto one image in a PNG of many; a style rule chooses the PNG by the step.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kip_flax.data import sampling
from kip_flax.modes import pages
from kip_flax.modes.report import sprites
from kip_flax.modes.report.facts import RunFacts

_WIDE, _NARROW, _SMALL = 88, 68, 64  # Most pixels of a picture's longer side.
_NEIGHBOUR_PIXELS = 400_000  # Most pixels of all neighbours shown.
_BAR_HEIGHT = 60  # As in report.js.
_TABLE_CELLS = 2000
_STARTS = {"real": "real image", "noise": "noise", "set": "image of another set"}

Tile = tuple[int, int]  # Column and row of an image in a PNG of many.


# --- learned images ---


class Bars(NamedTuple):
    """The label of an image as bars: SVG paths, size, y of zero, and its largest values."""

    own: str
    others: str
    width: int
    height: int
    zero: float
    largest: tuple[tuple[str, float], ...]


class Card(NamedTuple):
    """A support image: its number from 1, the class it began as, and that class's label value."""

    number: int
    name: str
    value: float
    tile: Tile
    bars: Bars


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a set.

    Attributes:
        start: the kind of initial images, in words.
        cards: one for each image shown.
        slider: text of the slider at each step.
        ticks: whether class names fit under the bars.
        last_step: the last step shown.
        label_rows: name and label values of each image after `last_step`; empty if there are too
            many to read.
        data: the labels of all steps, for report.js.
    """

    start: str
    cards: tuple[Card, ...]
    slider: tuple[str, ...]
    ticks: bool
    last_step: int
    label_rows: tuple[tuple[str, ...], ...]
    data: dict[str, Any]


def learned(run: RunFacts) -> Images:
    """The support images of a run, which must have frames."""
    names, last = run.class_names, run.frames[-1]
    own, numbers = run.first_classes, [row + 1 for row in run.choice.rows.tolist()]
    low, high = _range(run)
    cards = tuple(
        Card(
            number,
            names[own[at]],
            float(last.labels[at, own[at]]),
            sprites.place(at, len(numbers)),
            _bars(last.labels[at], int(own[at]), names, (low, high)),
        )
        for at, number in enumerate(numbers)
    )
    label_rows = tuple(
        (f"{card.number} ({card.name})", *(pages.signed(value, 3) for value in label))
        for card, label in zip(cards, last.labels, strict=True)
        if last.labels.size <= _TABLE_CELLS
    )
    slider = tuple(_slider_text(run, frame.step) for frame in run.frames)
    frames = [
        {"step": frame.step, "text": text, **sprites.packed(frame.labels)}
        for frame, text in zip(run.frames, slider, strict=True)
    ]
    return Images(
        _STARTS[run.start],
        cards,
        slider,
        len(names) <= 12 and max(map(len, names)) <= 2,
        last.step,
        label_rows,
        {
            "names": names,
            "own": own.tolist(),
            "numbers": numbers,
            "range": (low, high),
            "frames": frames,
        },
    )


def _slider_text(run: RunFacts, step: int) -> str:
    row = next(row for row in run.evaluations if row["step"] == step)
    accuracy = f"{run.split} accuracy {100 * row['accuracy']:.2f} %"
    return f"step {pages.number(step)}: {accuracy}, mse {row['mse']:.4f}"


def _range(run: RunFacts) -> tuple[float, float]:
    """Smallest and largest label value of all steps, so that all bars have one scale."""
    labels = np.stack([frame.labels for frame in run.frames])
    return min(0.0, float(labels.min())), max(1e-6, float(labels.max()))


def _bars(
    label: np.ndarray, own: int, names: tuple[str, ...], low_high: tuple[float, float]
) -> Bars:
    low, high = low_high
    unit = _BAR_HEIGHT / (high - low)
    paths = [
        f"M{10 * k + 1} {high * unit:.1f}h8V{(high - value) * unit:.1f}h-8z"
        for k, value in enumerate(label.tolist())
    ]
    largest = np.argsort(-np.abs(label), kind="stable")[:3]
    return Bars(
        paths[own],
        "".join(path for k, path in enumerate(paths) if k != own),
        10 * len(label),
        _BAR_HEIGHT,
        high * unit,
        tuple((names[k], float(label[k])) for k in largest),
    )


# --- the nearest real images ---


class Real(NamedTuple):
    """A real image: its class, its cosine with an image of the set, and its tile."""

    name: str
    cosine: float
    tile: Tile


class Neighbours(NamedTuple):
    """An image of the set with the real images nearest to it."""

    number: int
    name: str
    tile: Tile
    nearest: tuple[Real, ...]


def neighbours(run: RunFacts) -> tuple[Neighbours, ...]:
    """The real images nearest in kernel space to each image shown; the run must be analysed."""
    assert run.analysis is not None
    found, shown = run.analysis, _with_neighbours(run)
    place = {int(row): at for at, row in enumerate(run.choice.rows)}  # Support row -> card.
    count = found["nearest_labels"].shape[1]

    def real(number: int, at: int, rank: int) -> Real:
        name = run.class_names[found["nearest_labels"][at, rank]]
        tile = sprites.place(number * count + rank, count * len(shown))
        return Real(name, float(found["nearest_similarity"][at, rank]), tile)

    items = []
    for number, at in enumerate(shown.tolist()):
        row = int(found["nearest_rows"][at])
        name = run.class_names[run.first_classes[place[row]]]
        nearest = tuple(real(number, at, rank) for rank in range(count))
        tile = sprites.place(place[row], len(run.choice.rows))
        items.append(Neighbours(row + 1, name, tile, nearest))
    return tuple(items)


def _with_neighbours(run: RunFacts) -> np.ndarray:
    """Positions of the neighbours shown: those of images on cards, evenly thinned if too many."""
    assert run.analysis is not None
    known = np.flatnonzero(np.isin(run.analysis["nearest_rows"], run.choice.rows))
    pixels = run.analysis["nearest_pixels"].shape[1] * run.image_shape[0] * run.image_shape[1]
    return known[sampling.evenly(len(known), max(1, _NEIGHBOUR_PIXELS // pixels))]


# --- the rules of the style sheet ---


@dataclass(frozen=True, eq=False)
class Style:
    """Size and pictures of a run's tiles, for the style sheet.

    Attributes:
        width, height: pixels of an image.
        columns: images in a row of a frame's PNG.
        whole: whether an image's pixel is a square of whole screen pixels.
        wide, narrow, small: screen pixels per image pixel on a wide screen, on a narrow one, and
            among neighbours.
        neighbours: PNG of the neighbours and its number of columns, or None.
    """

    width: int
    height: int
    columns: int
    whole: bool
    wide: float
    narrow: float
    small: float
    neighbours: tuple[bytes, int] | None


def style(run: RunFacts) -> Style:
    """The style of a run, which must have frames."""
    height, width = run.image_shape[:2]
    wide, narrow, small = (_scale(max(height, width), side) for side in (_WIDE, _NARROW, _SMALL))
    columns = sprites.columns(len(run.choice.rows))
    near = None if run.analysis is None else _neighbour_sheet(run, run.analysis["nearest_pixels"])
    return Style(width, height, columns, wide >= 1, wide, narrow, small, near)


def _neighbour_sheet(run: RunFacts, pixels: np.ndarray) -> tuple[bytes, int]:
    shown = pixels[_with_neighbours(run)]
    shown = shown.reshape(-1, *shown.shape[2:])
    png = sprites.encode(shown / 255, palette=shown.size > _NEIGHBOUR_PIXELS)
    return png, sprites.columns(len(shown))


def _scale(side: int, most: int) -> float:
    """Screen pixels per image pixel: a whole number if it can be, so that all are equally large."""
    return math.floor(most / side) if most >= side else most / side
