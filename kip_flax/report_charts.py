"""Charts of the report as inline SVG: accessible (title, description), coloured by the style sheet.

Colours come from classes, so that they follow light and dark; series also differ by dashes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 44
_INNER = _WIDTH - _LEFT - _RIGHT
Place = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """A series: `points` (x, y); `css` names its colour; `dots` marks every point."""

    name: str
    css: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line."""

    name: str
    css: str
    value: float


def line_chart(
    uid: str,
    title: str,
    description: str,
    lines: Sequence[Line],
    levels: Sequence[Level] = (),
    *,
    x_label: str,
    steps: bool = True,
    percent: bool = False,
    log_y: bool = False,
    cursor: float | None = None,
) -> str:
    """A chart with its legend.

    Args:
        uid: unique in the page.
        title, description: for those who do not see it.
        lines, levels: what is drawn; values that cannot be (not finite, or on a logarithmic axis
            not positive) are left out.
        x_label: of the horizontal axis.
        steps: that axis is log(1 + x), on which step 0 has a place; else it is linear.
        percent: values are shares, shown in %.
        log_y: the vertical axis is logarithmic.
        cursor: x of a line that the page's slider moves.
    """

    def drawable(y: float) -> bool:
        return math.isfinite(y) and (y > 0 or not log_y)

    lines = [
        Line(s.name, s.css, [(x, y) for x, y in s.points if drawable(y)], s.dots) for s in lines
    ]
    lines = [series for series in lines if series.points]
    levels = [level for level in levels if drawable(level.value)]
    values = [y for s in lines for _, y in s.points] + [level.value for level in levels]
    if not values:
        return '<p class="soft">Nothing to draw yet.</p>'
    xs = [x for s in lines for x, _ in s.points] or [0.0]
    last = max(xs)
    x_at, x_ticks = _step_axis(last) if steps else _linear_axis(min(xs), last)
    y_at, y_ticks, y_text = _value_axis(min(values), max(values), percent, log_y)
    scale = f' data-scale="{_LEFT} {_INNER} {last:g}"' if cursor is not None else ""
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'role="img" aria-labelledby="{uid}-title {uid}-desc"{scale}>',
        f'<title id="{uid}-title">{escape(title)}</title>',
        f'<desc id="{uid}-desc">{escape(description)}</desc>',
        *(_y_tick(y_at(tick), y_text(tick)) for tick in y_ticks),
        *(_x_tick(x_at(tick), f"{tick:g}") for tick in x_ticks),
        f'<text class="ink" x="{_LEFT + _INNER / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
    ]
    if cursor is not None:
        at = f"{x_at(cursor):.1f}"
        ends = f'y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"'
        parts.append(f'<line class="cursor" x1="{at}" x2="{at}" {ends}/>')
    parts += [
        f'<line class="level {level.css}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
        f'y1="{y_at(level.value):.1f}" y2="{y_at(level.value):.1f}"/>'
        for level in levels
    ]
    parts += [_polyline(series, x_at, y_at, y_text) for series in lines]
    return _legend(lines, levels) + "\n".join([*parts, "</svg>"])


def class_bars(
    uid: str,
    title: str,
    rows: Sequence[tuple[str, float, float, float]],
    legend: tuple[str, str, str],
) -> str:
    """Horizontal bars of shares (0 to 1), one row per class, with two marks on each.

    Args:
        uid: unique in the page.
        title: for those who do not see it.
        rows: class name, share drawn as a bar, shares drawn as marks (NaN: none).
        legend: what the three are.
    """
    name_width = min(150, 16 + 7.2 * max(len(name) for name, *_ in rows))
    width, row_height = _WIDTH - name_width - 52, 23
    height = row_height * len(rows) + 4
    told = "; ".join(f"{name} {share:.0%}" for name, share, *_ in rows)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="{uid}-title {uid}-desc">',
        f'<title id="{uid}-title">{escape(title)}</title>',
        f'<desc id="{uid}-desc">{escape(told)}</desc>',
    ]
    for place, (name, share, *marks) in enumerate(rows):
        y = row_height * place + 3
        parts.append(
            f'<text class="ink" x="{name_width - 8:.0f}" y="{y + 14}" text-anchor="end">'
            f"{escape(_short(name, 19))}</text>"
            f'<rect class="k-test" x="{name_width:.0f}" y="{y}" width="{share * width:.1f}" '
            f'height="{row_height - 7}"><title>{escape(name)}: {share:.1%}</title></rect>'
            f'<text x="{_WIDTH - 2}" y="{y + 14}" text-anchor="end">{100 * share:.1f}</text>'
        )
        for css, mark in zip(("k-start", "k-solved"), marks, strict=True):
            if math.isfinite(mark):
                x = name_width + mark * width
                parts.append(
                    f'<rect class="mark {css}" x="{x - 2:.1f}" y="{y - 2}" width="4" '
                    f'height="{row_height - 3}"/>'
                )
    keys = [Line(name, css, ()) for name, css in zip(legend, _BAR_CLASSES, strict=True) if name]
    return _legend(keys, ()) + "\n".join([*parts, "</svg>"])


_BAR_CLASSES = ("k-test", "k-start", "k-solved")


def _legend(lines: Sequence[Line], levels: Sequence[Level]) -> str:
    keys = [(s.name, s.css, "") for s in lines] + [(s.name, s.css, "level") for s in levels]
    items = "".join(
        f'<li class="{css}"><svg width="26" height="8" aria-hidden="true"><line class="{kind}" '
        f'x1="0" x2="26" y1="4" y2="4"/></svg>{escape(name)}</li>'
        for name, css, kind in keys
    )
    return f'<ul class="legend">{items}</ul>'


def _polyline(series: Line, x_at: Place, y_at: Place, text: Callable[[float], str]) -> str:
    points = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in series.points)
    drawn = f'<polyline class="{series.css} {series.css.removeprefix("k-")}" points="{points}"/>'
    if series.dots:
        drawn += "".join(
            f'<circle class="{series.css}" cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="3.4">'
            f"<title>{escape(series.name)}, {x:g}: {text(y)}</title></circle>"
            for x, y in series.points
        )
    return drawn


def _step_axis(last: float) -> tuple[Place, list[float]]:
    span = math.log1p(last) or 1.0

    def at(x: float) -> float:
        return _LEFT + _INNER * math.log1p(x) / span

    wanted = [0.0] + [m * 10.0**e for e in range(7) for m in (1, 2, 5)]
    if last > 300:
        wanted = [0.0] + [10.0**e for e in range(7)]
    ticks = [x for x in wanted if x <= last]
    if last not in ticks:
        ticks = [x for x in ticks if at(last) - at(x) > 30] + [last]
    return at, ticks


def _linear_axis(first: float, last: float) -> tuple[Place, list[float]]:
    span = (last - first) or 1.0
    step = max(1.0, _nice(span / 6))
    inner = [step * n for n in range(math.ceil(first / step), math.floor(last / step) + 1)]
    ticks = [first] + [x for x in inner if first + step / 2 < x < last - step / 2] + [last]
    return lambda x: _LEFT + _INNER * (x - first) / span, list(dict.fromkeys(ticks))


def _value_axis(
    low: float, high: float, percent: bool, log: bool
) -> tuple[Place, list[float], Callable[[float], str]]:
    room = _HEIGHT - _TOP - _BOTTOM
    if log:
        low, high = math.log10(low), math.log10(high)
        margin = 0.06 * (high - low) or 0.1
        low, high = low - margin, high + margin
        return (
            lambda y: _TOP + room * (high - math.log10(y)) / (high - low),
            _log_ticks(low, high),
            _power,
        )
    step = _nice(max(high - low, 0.05 if percent else abs(high) / 10 or 1) / 4)
    low, high = step * math.floor(low / step), step * math.ceil(high / step)
    if percent:
        low, high = max(0.0, low), min(1.0, high)
    high = high if high > low else low + step
    ticks = [low + step * n for n in range(round((high - low) / step) + 1)]

    def text(y: float) -> str:
        return f"{100 * y:.4g} %" if percent else f"{y:.4g}"

    return lambda y: _TOP + room * (high - y) / (high - low), ticks, text


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between 10^low and 10^high: evenly spaced ones where that is less than 10x."""
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
    """The next larger of 1, 2, 5, 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * 0.999)


def _power(value: float) -> str:
    return f"{value:.3g}" if 1e-3 <= value < 1e5 else f"{value:.0e}".replace("e-0", "e-")


def _y_tick(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _x_tick(x: float, text: str) -> str:
    bottom = _HEIGHT - _BOTTOM
    return (
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
    )


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
