"""Charts of the report as inline SVG: accessible (title, description), coloured by the style sheet.

Colours come from classes, so that they follow light and dark; series also differ by dashes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from kip_flax.modes.report import axes as report_axes
from kip_flax.modes.report.axes import BOTTOM, HEIGHT, INNER, LEFT, RIGHT, TOP, WIDTH, Place


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
    x_at, x_ticks = report_axes.step_axis(last) if steps else report_axes.linear_axis(min(xs), last)
    y_at, y_ticks, y_text = report_axes.value_axis(min(values), max(values), percent, log_y)
    scale = f' data-scale="{LEFT} {INNER} {last:g}"' if cursor is not None else ""
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-labelledby="{uid}-title {uid}-desc"{scale}>',
        f'<title id="{uid}-title">{escape(title)}</title>',
        f'<desc id="{uid}-desc">{escape(description)}</desc>',
        *(_y_tick(y_at(tick), y_text(tick)) for tick in y_ticks),
        *(_x_tick(x_at(tick), f"{tick:g}") for tick in x_ticks),
        f'<text class="ink" x="{LEFT + INNER / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
    ]
    if cursor is not None:
        at = f"{x_at(cursor):.1f}"
        ends = f'y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
        parts.append(f'<line class="cursor" x1="{at}" x2="{at}" {ends}/>')
    parts += [
        f'<line class="level {level.css}" x1="{LEFT}" x2="{WIDTH - RIGHT}" '
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
    width, row_height = WIDTH - name_width - 52, 23
    height = row_height * len(rows) + 4
    told = "; ".join(f"{name} {share:.0%}" for name, share, *_ in rows)
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
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
            f'<text x="{WIDTH - 2}" y="{y + 14}" text-anchor="end">{100 * share:.1f}</text>'
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


def _y_tick(y: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _x_tick(x: float, text: str) -> str:
    bottom = HEIGHT - BOTTOM
    return (
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>'
        f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
    )


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
