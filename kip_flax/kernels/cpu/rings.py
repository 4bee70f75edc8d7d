"""Planes and the rings of rows in which they flow through the stages of a level.

A stage is a convolution and the ReLU after it. It keeps as many rows of its input as its window is
high; the next row replaces the oldest.
"""

from typing import Any, NamedTuple

import numpy as np

from kip_flax.kernels.cpu import rows
from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.vectors import row_at
from kip_flax.kernels.cpu.windows import add_window


class Rings(NamedTuple):
    """Rows in flight, of K and of T: (rows * length, LANES).

    All rows have the same length, with `reach` columns of zeros on both sides. Row 0 stays zero and
    row 1 is free. Then each stage has as many rows of its input as its window is high.
    `columns` (window + 1, 4) is filled by `pooling.coarse_columns`.
    """

    k: np.ndarray
    t: np.ndarray
    length: int
    reach: int
    columns: np.ndarray


class Plane(NamedTuple):
    """One offset of one level, limited to the pixels that lie in both images."""

    level: int
    oh: int
    ow: int
    top: int
    left: int
    height: int
    width: int


@loop
def plane_at(program: Any, index: int, number: int) -> Plane:
    """The plane of offset `number` of a level."""
    level = program.levels[index]
    oh, ow = program.offsets[level.first_offset + number]
    height, width = level.height - abs(oh), level.width - abs(ow)
    return Plane(index, oh, ow, max(0, -oh), max(0, -ow), height, width)


@inlined
def ring_row(rings: Any, first: int, depth: int, h: int, height: int) -> int:
    """The start of row `h` of a ring, or of the row of zeros if `h` is outside the plane."""
    number = first + h % depth if 0 <= h < height else 0
    return number * rings.length + rings.reach


@inlined
def ring_depth(program: Any, level: Any, number: int) -> int:
    """Number of rows in the ring before a stage; 1 after the last stage."""
    if number == level.stages:
        return 1
    return program.stages[level.first_stage + number].size


@loop
def clear_right(rings: Any, array: Any, width: int) -> None:
    """Writes `reach` zeros from column `width` on, in all rows."""
    for begin in range(rings.reach, len(array), rings.length):
        rows.clear(row_at(array, begin + width), rings.reach)


@inlined
def around(rings: Any, stage: Any, h: int, height: int) -> Any:
    """The three rows of K and of T around row `h` of a stage's ring of three."""
    above = ring_row(rings, stage.first_row, 3, h - 1, height)
    here = ring_row(rings, stage.first_row, 3, h, height)
    below = ring_row(rings, stage.first_row, 3, h + 1, height)
    rows_k = row_at(rings.k, above), row_at(rings.k, here), row_at(rings.k, below)
    if not stage.tangent:
        above = here = below = rings.reach
    return rows_k, (row_at(rings.t, above), row_at(rings.t, here), row_at(rings.t, below))


@loop
def summed(rings: Any, array: Any, stage: Any, h: int, height: int, width: int) -> Any:
    """The sums over windows of any size around row `h` of a stage's ring, as a tuple of one row.

    They are written to the last row of `array` but one, and are zero if `height` is 0.
    """
    out = row_at(array, len(array) - 2 * rings.length + rings.reach)
    rows.clear(out, width)
    reach = stage.size // 2
    for i in range(max(0, h - reach), min(height, h + reach + 1)):
        source = row_at(array, ring_row(rings, stage.first_row, stage.size, i, height))
        add_window(source, reach, out, width)
    return (out,)


@inlined
def pixel(program: Any, plane: Plane, h: int) -> tuple[int, int]:
    """Indices of the first pixels of row `h`, in the fixed and in the moving image."""
    width = program.levels[plane.level].width
    one = (plane.top + h) * width + plane.left
    return one, one + plane.oh * width + plane.ow
