"""The numbers of an image that its deviations depend on, and the derivatives as a sparse matrix.

A deviation depends on a window of the image. Deviations of one stage whose windows do not overlap
share one backward pass (Curtis, Powell and Reid, 1974): some hundred passes instead of thousands.
"""

import functools
from typing import NamedTuple

import numpy as np

from kip_flax.kernels.plan import KernelLevel, KernelPlan

Windows = tuple[np.ndarray, np.ndarray]  # First and last pixel of each window, on one axis.


class Reach(NamedTuple):
    """The pattern of the derivatives of the deviations, which all images of a size share.

    Attributes:
        starts: (maps + 1,), the first entry of each deviation, and the number of entries.
        maps, numbers: (entries,), each entry's deviation and its place in the flat image.
        pass_of: (maps,), the pass that computes a deviation's derivatives.
        passes: number of passes.
    """

    starts: np.ndarray
    maps: np.ndarray
    numbers: np.ndarray
    pass_of: np.ndarray
    passes: int


@functools.lru_cache(maxsize=8)
def make_reach(plan: KernelPlan, channels: int) -> Reach:
    """The pattern for images of `channels` channels."""
    rows, columns = (
        _windows_of_stages(plan, np.arange(size), axis)
        for axis, size in enumerate((plan.levels[0].height, plan.levels[0].width))
    )
    numbers: list[np.ndarray] = []
    pass_of: list[np.ndarray] = [np.zeros(0, np.int64)]
    passes = 0
    for vertical, horizontal in zip(rows, columns, strict=True):
        row_period, column_period = _period(vertical), _period(horizontal)
        row_pass = np.arange(len(vertical[0])) % row_period
        column_pass = np.arange(len(horizontal[0])) % column_period
        pass_of.append((passes + row_pass[:, None] * column_period + column_pass).ravel())
        passes += row_period * column_period
        for top, bottom in zip(*vertical, strict=True):
            for left, right in zip(*horizontal, strict=True):
                line = np.arange(left * channels, (right + 1) * channels)
                begins = np.arange(top, bottom + 1) * plan.levels[0].width * channels
                numbers.append((begins[:, None] + line).ravel())
    sizes = [len(window) for window in numbers]
    return Reach(
        starts=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
        maps=np.repeat(np.arange(len(sizes)), sizes),
        numbers=np.concatenate([np.zeros(0, np.int64), *numbers]),
        pass_of=np.concatenate(pass_of),
        passes=passes,
    )


def seeds(reach: Reach) -> np.ndarray:
    """Cotangents (passes, maps) of the deviations: 1 for those that a pass computes, else 0."""
    return (reach.pass_of == np.arange(reach.passes)[:, None]).astype(np.float64)


def entries(reach: Reach, found: np.ndarray) -> np.ndarray:
    """The derivatives (..., entries), from the result of the passes (..., passes, size)."""
    return found[..., reach.pass_of[reach.maps], reach.numbers]


def _windows_of_stages(plan: KernelPlan, pixels: np.ndarray, axis: int) -> list[Windows]:
    """The windows of the image that each rectified stage depends on, along one axis."""
    first, last, found = pixels, pixels, []
    for level, after in zip(plan.levels, (*plan.levels[1:], None), strict=True):
        for op, rectified in level.stages():
            places, half = np.arange(len(first)), op.size // 2
            first = first[np.maximum(places - half, 0)]
            last = last[np.minimum(places + half, len(last) - 1)]
            if rectified:
                found.append((first, last))
        if after is not None:
            begins = level.start[axis] + level.step * np.arange(_size(after, axis))
            first, last = first[begins], last[begins + level.pool - 1]
    return found


def _size(level: KernelLevel, axis: int) -> int:
    return (level.height, level.width)[axis]


def _period(windows: Windows) -> int:
    """The least p for which the windows of places i and i + p never overlap."""
    first, last = windows
    return next(p for p in range(1, len(first) + 1) if np.all(last[:-p] < first[p:]))
