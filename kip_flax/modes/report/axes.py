"""Axes of the report's charts: where a value lies on the drawing, and which ticks are round."""

import math
from collections.abc import Callable

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 44
INNER = WIDTH - LEFT - RIGHT
Place = Callable[[float], float]


def step_axis(last: float) -> tuple[Place, list[float]]:
    """log(1 + x) from 0 to `last`: where a value lies, and ticks."""
    span = math.log1p(last) or 1.0

    def at(x: float) -> float:
        return LEFT + INNER * math.log1p(x) / span

    wanted = [0.0] + [m * 10.0**e for e in range(7) for m in (1, 2, 5)]
    if last > 300:
        wanted = [0.0] + [10.0**e for e in range(7)]
    ticks = [x for x in wanted if x <= last]
    if last not in ticks:
        ticks = [x for x in ticks if at(last) - at(x) > 30] + [last]
    return at, ticks


def linear_axis(first: float, last: float) -> tuple[Place, list[float]]:
    """From `first` to `last`: where a value lies, and ticks."""
    span = (last - first) or 1.0
    step = max(1.0, _nice(span / 6))
    inner = [step * n for n in range(math.ceil(first / step), math.floor(last / step) + 1)]
    ticks = [first] + [x for x in inner if first + step / 2 < x < last - step / 2] + [last]
    return lambda x: LEFT + INNER * (x - first) / span, list(dict.fromkeys(ticks))


def value_axis(
    low: float, high: float, percent: bool, log: bool
) -> tuple[Place, list[float], Callable[[float], str]]:
    """The vertical axis around `low` to `high`: where a value lies, ticks, and their words."""
    room = HEIGHT - TOP - BOTTOM
    if log:
        low, high = math.log10(low), math.log10(high)
        margin = 0.06 * (high - low) or 0.1
        low, high = low - margin, high + margin
        return (
            lambda y: TOP + room * (high - math.log10(y)) / (high - low),
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

    return lambda y: TOP + room * (high - y) / (high - low), ticks, text


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
