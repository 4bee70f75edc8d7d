"""Everything of the page that has pictures: cards, slider, neighbours, rules of the style sheet.

A tile is a window onto a picture of many; which picture it is, a rule says by the step.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from kip_flax.data import sampling
from kip_flax.modes import pages
from kip_flax.modes.report import sprites
from kip_flax.modes.report.facts import RunFacts

_WIDE, _NARROW, _SMALL = 88, 68, 64  # Pixels of a picture's longer side, at most.
_NEIGHBOUR_PIXELS = 400_000  # Of the neighbours' pictures; of more, some are shown.
_BAR_HEIGHT = 60  # As in report.js.
_TABLE_CELLS = 2000

Tile = tuple[int, int]  # Column and row of a picture among many.


# --- what was learned ---


class Bars(NamedTuple):
    """The label of an image as bars: SVG paths, size, height of zero; what is largest in it."""

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
        start: what each image began as, in words.
        cards: one for each image shown.
        slider: what the slider says of each step.
        ticks: whether class names fit under the bars.
        label_rows: name and label values of each image after `last_step`; none where they would
            be a wall of numbers.
        data: what report.js draws the labels of a step from.
    """

    start: str
    cards: tuple[Card, ...]
    slider: tuple[str, ...]
    ticks: bool
    last_step: int
    label_rows: tuple[tuple[str, ...], ...]
    data: dict[str, Any]


def learned(run: RunFacts) -> Images:
    """The support images of a run with frames."""
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
        {"real": "real image", "noise": "noise"}.get(
            run.config["support.init"], "image of another set"
        ),
        cards,
        slider,
        len(names) <= 12 and max(map(len, names)) <= 2,
        last.step,
        label_rows,
        {"names": names, "own": own.tolist(), "range": (low, high), "frames": frames},
    )


def _slider_text(run: RunFacts, step: int) -> str:
    row = next(row for row in run.evaluations if row["step"] == step)
    accuracy = f"{run.split} accuracy {100 * row['accuracy']:.2f} %"
    return f"step {pages.number(step)}: {accuracy}, mse {row['mse']:.4f}"


def _range(run: RunFacts) -> tuple[float, float]:
    """Smallest and largest label of all steps: all bars have one scale."""
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
    """A real image: its class, and the cosine with an image of the set."""

    name: str
    cosine: float
    tile: Tile


class Neighbours(NamedTuple):
    """An image of the set with the real ones nearest to it."""

    number: int
    name: str
    tile: Tile
    nearest: tuple[Real, ...]


def neighbours(run: RunFacts) -> tuple[Neighbours, ...]:
    """For each image shown the real ones nearest to it in kernel space; of analysed runs."""
    assert run.analysis is not None
    found, shown = run.analysis, _with_neighbours(run)
    place = {int(row): at for at, row in enumerate(run.choice.rows)}  # Of a row among the cards.
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
    """Which of the images with neighbours are shown: those of the cards, evenly where too many."""
    assert run.analysis is not None
    known = np.flatnonzero(np.isin(run.analysis["nearest_rows"], run.choice.rows))
    pixels = run.analysis["nearest_pixels"].shape[1] * run.image_shape[0] * run.image_shape[1]
    return known[sampling.evenly(len(known), max(1, _NEIGHBOUR_PIXELS // pixels))]


# --- the rules of the style sheet ---


@dataclass(frozen=True, eq=False)
class Style:
    """What gives a run's tiles their size and their pictures, one picture per step.

    Attributes:
        width, height: of an image.
        columns: pictures in a row of a frame's PNG.
        whole: whether an image's pixel is a square of whole screen pixels.
        wide, narrow, small: screen pixels of an image's pixel on a wide screen, on a narrow one,
            among neighbours.
        neighbours: PNG of the neighbours and its columns, or None.
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
    """The rules of a run with frames."""
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
    """Screen pixels of an image's pixel: whole where it fits, so that all are of one size."""
    return math.floor(most / side) if most >= side else most / side
