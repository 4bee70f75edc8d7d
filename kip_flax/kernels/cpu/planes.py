"""One plane, row by row, through the layers of a level: forward, and backward by recomputation.

Rows flow through rings: a stage (a convolution and the ReLU after it) makes its row h as soon as
the stage before it has made row h + reach, and keeps as many rows as its window is high. So a plane
never leaves the cache of a core. Backward runs the same stream, in the same pass, some rows later.
"""

from typing import Any, NamedTuple

import numpy as np

from kip_flax.kernels.cpu import rows
from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.pooling import cell_row, coarse_columns, collect
from kip_flax.kernels.cpu.sides import Sides
from kip_flax.kernels.cpu.vectors import row_at


class Rings(NamedTuple):
    """Rows in flight, of K and of T: (rows * length, LANES).

    All rows have one length with `reach` columns of zeros on both sides. Row 0 stays zero, row 1 is
    free, and then every stage has as many rows of what enters it as its window is high.
    `columns` (window, 4) is what `pooling.coarse_columns` says of the plane.
    """

    k: np.ndarray
    t: np.ndarray
    length: int
    reach: int
    columns: np.ndarray


class Plane(NamedTuple):
    """One offset of one level, as far as it lies in both images."""

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
    """Where row `h` of a ring begins; the row of zeros outside the plane."""
    number = first + h % depth if 0 <= h < height else 0
    return number * rings.length + rings.reach


@loop
def clear_right(rings: Any, array: Any, width: int) -> None:
    """Zeros to the right of column `width`, in all rows."""
    for begin in range(rings.reach, len(array), rings.length):
        rows.clear(row_at(array, begin + width), rings.reach)


@inlined
def around3(rings: Any, array: Any, first: int, h: int, height: int) -> Any:
    """The three rows around row `h` of a ring of three."""
    return (
        row_at(array, ring_row(rings, first, 3, h - 1, height)),
        row_at(array, ring_row(rings, first, 3, h, height)),
        row_at(array, ring_row(rings, first, 3, h + 1, height)),
    )


@loop
def summed(rings: Any, array: Any, stage: Any, h: int, height: int, width: int) -> Any:
    """The sums of the windows of any size around row `h` of a stage's ring.

    They are made in a row of their own, the last of all, and are zero where `height` is.
    """
    out = row_at(array, len(array) - rings.length + rings.reach)
    rows.clear(out, width)
    reach = stage.size // 2
    for i in range(max(0, h - reach), min(height, h + reach + 1)):
        source = row_at(array, ring_row(rings, stage.first_row, stage.size, i, height))
        rows.add_window(source, reach, out, width)
    return (out,)


@inlined
def pixel(program: Any, plane: Plane, h: int) -> tuple[int, int]:
    """The first pixels of row `h`, in the fixed and in the moving image."""
    width = program.levels[plane.level].width
    one = (plane.top + h) * width + plane.left
    return one, one + plane.oh * width + plane.ow


@inlined
def enter(
    program: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    planes_k: Any,
    planes_t: Any,
    k: Any,
    t: Any,
    tangent: bool,
) -> None:
    """Row `h` of what enters a level: the images' own covariance, or pooled planes."""
    if plane.level == 0:
        p1, p2 = pixel(program, plane, h)
        image1 = row_at(sides.image1, p1 * program.channels)
        image2 = row_at(sides.image2, p2 * program.channels)
        rows.mean_product(image1, image2, program.channels, k, plane.width)
        return
    begin = cell_row(program, plane.level, plane.top + h, plane.oh, plane.ow) + plane.left
    rows.copy(row_at(planes_k, begin), k, plane.width)
    if tangent:
        rows.copy(row_at(planes_t, begin), t, plane.width)


@inlined
def forward_stage(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    rings: Any,
    out: int,
    tangent: bool,
) -> None:
    """Row `h` through one stage, from its ring to the row that begins at `out`."""
    k, t = row_at(rings.k, out), row_at(rings.t, out)
    if stage.size == 3:
        around_k = around3(rings, rings.k, stage.first_row, h, plane.height)
        height = plane.height if stage.tangent else 0
        around_t = around3(rings, rings.t, stage.first_row, h, height)
        through(program, stage, plane, h, sides, around_k, around_t, k, t, tangent)
    else:
        sum_k = summed(rings, rings.k, stage, h, plane.height, plane.width)
        sum_t = summed(rings, rings.t, stage, h, plane.height if stage.tangent else 0, plane.width)
        through(program, stage, plane, h, sides, sum_k, sum_t, k, t, tangent)


@inlined
def through(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    around_k: Any,
    around_t: Any,
    k: Any,
    t: Any,
    tangent: bool,
) -> None:
    """Row `h` through one stage, from the rows that its windows read."""
    scale, bias, alpha, beta = stage.scale, stage.bias, stage.alpha, stage.beta
    width = plane.width
    if not stage.rectified:
        rows.convolved(around_k, around_t, scale, bias, alpha, beta, k, t, width, tangent)
        return
    p1, p2 = pixel(program, plane, h)
    s1, r1 = row_at(sides.s1, stage.map + p1), row_at(sides.r1, stage.map + p1)
    s2, r2 = row_at(sides.s2, stage.map + p2), row_at(sides.r2, stage.map + p2)
    if tangent and stage.ntk and not stage.tangent:
        rows.rectified_first(around_k, scale, bias, s1, r1, s2, r2, k, t, width)
    elif tangent and stage.ntk and not stage.signed:
        rows.rectified_later(around_k, around_t, scale, bias, s1, r1, s2, r2, k, t, width)
    else:
        rows.rectified(
            around_k, around_t, scale, bias, alpha, beta, s1, r1, s2, r2, k, t, width, tangent
        )


@loop
def forward_plane(
    program: Any,
    plane: Plane,
    sides: Sides,
    planes: Any,
    ends: Any,
    rings: Rings,
    tangent: bool,
) -> None:
    """Brings one plane through its level and adds it to the next one's planes, or to `ends`."""
    level = program.levels[plane.level]
    clear_right(rings, rings.k, plane.width)
    if tangent:
        clear_right(rings, rings.t, plane.width)
    coarse_columns(program, plane, rings.columns)
    for time in range(plane.height + level.lag):
        if time < plane.height:
            at = ring_row(rings, 2, ring_depth(program, level, 0), time, plane.height)
            k, t = row_at(rings.k, at), row_at(rings.t, at)
            enter(program, plane, time, sides, planes[0], planes[1], k, t, tangent)
        h, last = time, 2
        for number in range(level.stages):
            stage = program.stages[level.first_stage + number]
            h -= stage.size // 2
            last = stage.first_row + stage.size
            if 0 <= h < plane.height:
                depth = ring_depth(program, level, number + 1)
                out = ring_row(rings, last, depth, h, plane.height)
                forward_stage(program, stage, plane, h, sides, rings, out, tangent)
        if 0 <= h < plane.height:
            at = last * rings.length + rings.reach
            finish(program, plane, h, rings.columns, row_at(rings.k, at), planes[0], ends, 0)
            if tangent:
                finish(program, plane, h, rings.columns, row_at(rings.t, at), planes[1], ends, 1)


@inlined
def ring_depth(program: Any, level: Any, number: int) -> int:
    """Rows of the ring that enters a stage; 1 after the last."""
    if number == level.stages:
        return 1
    return program.stages[level.first_stage + number].size


@inlined
def finish(
    program: Any, plane: Plane, h: int, columns: Any, row: Any, planes: Any, ends: Any, which: int
) -> None:
    """A row that left the last stage of its level."""
    if program.levels[plane.level].pooled:
        collect(program, plane, h, columns, row, planes)
    else:
        rows.add_total(row, row_at(ends, which), plane.width)
