"""Charts of the report: coordinates of every mark, drawn by templates/charts.html.jinja.

Colours are classes of the style sheet, so that they follow light and dark mode.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from kip_flax.modes import pages

_BAR_CLASSES = ("k-test", "k-start", "k-solved")

Place = Callable[[float], float]
Scale = Literal["linear", "percent", "log"]


class Area(NamedTuple):
    """Size of a drawing, and the edges of the area between its axes, in pixels."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


AREA = Area(440, 280, 58, 426, 12, 236)


@dataclass(frozen=True)
class Curve:
    """A series of `points` (x, y).

    Attributes:
        name: its name in the legend.
        css: class of its colour.
        points: the points of the curve.
        dots: whether every point is marked.
        notes: by x, text of a point after its value.
    """

    name: str
    css: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    notes: Mapping[float, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Threshold:
    """A value to compare curves with, drawn as a horizontal line."""

    name: str
    css: str
    value: float


@dataclass(frozen=True)
class Chart:
    """The content of a chart.

    Attributes:
        uid: unique in the page.
        title, description: for screen readers.
        x_label: label of the horizontal axis.
        curves, thresholds: the lines that are drawn.
        x_scale: 'steps' is log(1 + x), which has a place for step 0.
        y_scale: 'percent' is linear and shows shares in %.
        cursor: x of a line that the page's slider moves; None: no line.
    """

    uid: str
    title: str
    description: str
    x_label: str
    curves: Sequence[Curve]
    thresholds: Sequence[Threshold] = ()
    x_scale: Literal["steps", "linear"] = "steps"
    y_scale: Scale = "linear"
    cursor: float | None = None


class Key(NamedTuple):
    """An entry of a legend."""

    name: str
    css: str
    dashed: bool = False


class Tick(NamedTuple):
    """A mark of an axis: its coordinate and its label."""

    at: float
    text: str


class Dot(NamedTuple):
    """A marked point of a curve, and its text."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Polyline:
    """A curve in the coordinates of the drawing; `points` as SVG writes them."""

    css: str
    points: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Drawing:
    """A chart in the coordinates of the drawing.

    Attributes:
        chart: its content.
        area: its size and edges.
        last: x value at the right end of the axis.
        x_ticks, y_ticks: marks of the axes.
        cursor: x coordinate of the line that the slider moves, or None.
        levels: class and y coordinate of every threshold.
        polylines: the curves.
        legend: an entry for each curve and threshold.
    """

    chart: Chart
    area: Area
    last: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    cursor: float | None
    levels: tuple[tuple[str, float], ...]
    polylines: tuple[Polyline, ...]
    legend: tuple[Key, ...]

    @property
    def step_scale(self) -> str:
        """Left edge, width and last step, by which report.js places the cursor; '' without one."""
        if self.cursor is None:
            return ""
        return f"{self.area.left} {self.area.right - self.area.left} {self.last:g}"


def draw(chart: Chart) -> Drawing | None:
    """The chart in the coordinates of the drawing; None if nothing can be drawn.

    A value that is not finite, or not positive on a logarithmic axis, is left out.
    """
    curves = [
        replace(c, points=[(x, y) for x, y in c.points if _drawable(y, chart)])
        for c in chart.curves
    ]
    curves = [curve for curve in curves if curve.points]
    thresholds = [t for t in chart.thresholds if _drawable(t.value, chart)]
    values = [y for c in curves for _, y in c.points] + [t.value for t in thresholds]
    if not values:
        return None
    xs = [x for c in curves for x, _ in c.points] or [0.0]
    x_at, x_ticks = step_axis(max(xs)) if chart.x_scale == "steps" else linear_axis(xs)
    y_at, y_ticks, y_text = value_axis(min(values), max(values), chart.y_scale)
    keys = [Key(c.name, c.css) for c in curves] + [Key(t.name, t.css, True) for t in thresholds]
    return Drawing(
        chart,
        AREA,
        max(xs),
        tuple(Tick(x_at(tick), f"{tick:.12g}") for tick in x_ticks),
        tuple(Tick(y_at(tick), y_text(tick)) for tick in y_ticks),
        None if chart.cursor is None else x_at(chart.cursor),
        tuple((t.css, y_at(t.value)) for t in thresholds),
        tuple(_polyline(curve, x_at, y_at, y_text) for curve in curves),
        tuple(keys),
    )


def _drawable(y: float, chart: Chart) -> bool:
    return math.isfinite(y) and (y > 0 or chart.y_scale != "log")


def _polyline(curve: Curve, x_at: Place, y_at: Place, text: Callable[[float], str]) -> Polyline:
    points = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in curve.points)
    dots = (
        Dot(x_at(x), y_at(y), f"{curve.name}, {x:.12g}: {text(y)}{curve.notes.get(x, '')}")
        for x, y in curve.points
    )
    return Polyline(curve.css, points, tuple(dots) if curve.dots else ())


# --- axes: the coordinate of a value, and round ticks ---


def step_axis(last: float) -> tuple[Place, list[float]]:
    """An axis of log(1 + x) from 0 to `last`: value -> coordinate, and ticks."""
    span = math.log1p(last) or 1.0

    def at(x: float) -> float:
        return AREA.left + (AREA.right - AREA.left) * math.log1p(x) / span

    wanted = [0.0] + [m * 10.0**e for e in range(7) for m in (1, 2, 5)]
    if last > 300:
        wanted = [0.0] + [10.0**e for e in range(7)]
    ticks = [x for x in wanted if x <= last]
    if last not in ticks:
        ticks = [x for x in ticks if at(last) - at(x) > 30] + [last]
    return at, ticks


def linear_axis(xs: Sequence[float]) -> tuple[Place, list[float]]:
    """An axis from the smallest to the largest of `xs`: value -> coordinate, and ticks."""
    first, last = min(xs), max(xs)
    span = (last - first) or 1.0
    step = max(1.0, _nice(span / 6))
    inner = [step * n for n in range(math.ceil(first / step), math.floor(last / step) + 1)]
    ticks = [first] + [x for x in inner if first + step / 2 < x < last - step / 2] + [last]

    def at(x: float) -> float:
        return AREA.left + (AREA.right - AREA.left) * (x - first) / span

    return at, list(dict.fromkeys(ticks))


def value_axis(
    low: float, high: float, scale: Scale
) -> tuple[Place, list[float], Callable[[float], str]]:
    """The vertical axis around `low` to `high`: value -> coordinate, ticks, and value -> label."""
    room, percent = AREA.bottom - AREA.top, scale == "percent"
    if scale == "log":
        low, high = math.log10(low), math.log10(high)
        margin = 0.06 * (high - low) or 0.1
        low, high = low - margin, high + margin
        return (
            lambda y: AREA.top + room * (high - math.log10(y)) / (high - low),
            _log_ticks(low, high),
            _power,
        )
    step = _nice(max(high - low, 0.05 if percent else abs(high) / 10 or 1) / 4)
    low, high = step * math.floor(low / step), step * math.ceil(high / step)
    if percent:
        low, high = max(0.0, low), min(1.0, high)
    if high == low:
        low, high = (low - step, high) if percent and low == 1 else (low, low + step)
    ticks = [low + step * n for n in range(round((high - low) / step) + 1)]

    def text(y: float) -> str:
        return f"{100 * y:.4g} %" if percent else f"{y:.4g}"

    return lambda y: AREA.top + room * (high - y) / (high - low), ticks, text


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from 10^low to 10^high, evenly spaced if the range is below a factor of 6."""
    if high - low < 0.8:
        step = _nice((10**high - 10**low) / 6)
        first, last = math.ceil(10**low / step), math.floor(10**high / step)
        return [step * n for n in range(first, last + 1)]
    mantissas = (1, 2, 5) if high - low < 2.2 else (1,)
    every = max(1, round((high - low) / 6))
    exponents = [e for e in range(math.floor(low), math.ceil(high) + 1) if e % every == 0]
    wanted = [m * 10.0**e for e in exponents for m in mantissas]
    return [value for value in wanted if low <= math.log10(value) <= high]


def _nice(step: float) -> float:
    """`step`, rounded up to 1, 2, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)


def _power(value: float) -> str:
    if 1e-3 <= value < 1e5:
        return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"
    digits, exponent = f"{value:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


# --- bars per class ---


class ClassShares(NamedTuple):
    """Shares (0 to 1) of a class: one drawn as a bar, two as marks on it (NaN: no mark)."""

    name: str
    bar: float
    marks: tuple[float, float]


class Bar(NamedTuple):
    """The bar of a class at `y`, `width` pixels long, with CSS class and x of each mark on it."""

    name: str
    label: str
    share: float
    y: int
    width: float
    marks: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class ClassBars:
    """Horizontal bars of shares, one row per class, in the coordinates of the drawing.

    Attributes:
        uid: unique in the page.
        title, description: for screen readers.
        width, height: size of the drawing.
        row: height of a row.
        left: x where the bars begin.
        bars: one per class.
        legend: entries for the bar and its marks.
    """

    uid: str
    title: str
    description: str
    width: int
    height: int
    row: int
    left: float
    bars: tuple[Bar, ...]
    legend: tuple[Key, ...]


def class_bars(
    uid: str, title: str, rows: Sequence[ClassShares], legend: tuple[str, str, str]
) -> ClassBars:
    """Places one bar per class.

    Args:
        uid: unique in the page.
        title: for screen readers.
        rows: shares of each class.
        legend: names of the bar and of the two marks; '' for a mark that is missing.
    """
    height = 23
    left = min(150, 16 + 7.2 * max(len(row.name) for row in rows))
    width = AREA.width - left - 52

    def place(number: int, row: ClassShares) -> Bar:
        marks = zip(_BAR_CLASSES[1:], row.marks, strict=True)
        there = tuple((css, left + m * width) for css, m in marks if math.isfinite(m))
        label = pages.shortened(row.name, 19)
        return Bar(row.name, label, row.bar, height * number + 3, row.bar * width, there)

    return ClassBars(
        uid,
        title,
        "; ".join(f"{row.name} {row.bar:.0%}" for row in rows),
        AREA.width,
        height * len(rows) + 4,
        height,
        left,
        tuple(place(number, row) for number, row in enumerate(rows)),
        tuple(Key(name, css) for name, css in zip(legend, _BAR_CLASSES, strict=True) if name),
    )
