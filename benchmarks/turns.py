"""Contenders that are timed in turns, so that what slows the machine down slows all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax


def medians(
    contenders: Mapping[str, Callable[[], Any]],
    repeats: int,
    rest: float = 0.0,
    on_first: Callable[[str, float], None] = lambda name, seconds: None,
) -> dict[str, float]:
    """Median seconds of each contender over `repeats` turns.

    Args:
        contenders: functions by name; their results are waited for.
        repeats: turns that count, after one that compiles; if 0, that one counts.
        rest: seconds of rest before a call that counts.
        on_first: is told the name and the seconds of each first call.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(1 + repeats):
        for name, run in contenders.items():
            time.sleep(rest if turn else 0)
            began = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - began)
            if not turn:
                on_first(name, times[name][0])
    return {name: statistics.median(values[1:] or values) for name, values in times.items()}
