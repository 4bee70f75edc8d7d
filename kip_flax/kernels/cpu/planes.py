"""One plane, row by row, through the layers of a level: forward, and backward by recomputation.

Rows flow through rings: a stage (a convolution and the ReLU after it) makes its row h as soon as
the stage before it has made row h + reach, and keeps as many rows as its window is high. So a plane
never leaves the cache of a core. Backward runs the same stream, in the same pass, some rows later.
"""

from typing import Any, NamedTuple

import numpy as np

from kip_flax.kernels.cpu import rows
from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.outlets import Rows
from kip_flax.kernels.cpu.pooling import (
    cell_row,
    coarse_columns,
    coarse_outlet,
    collect,
    pools_at_once,
)
from kip_flax.kernels.cpu.rows import Affine, Deviations
from kip_flax.kernels.cpu.sides import Sides
from kip_flax.kernels.cpu.vectors import row_at
from kip_flax.kernels.cpu.windows import Colour, Grey, add_window, mean_product


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
    """The sums of the windows of any size around row `h` of a stage's ring.

    They are made in a row of their own, the last of all, and are zero where `height` is.
    """
    out = row_at(array, len(array) - rings.length + rings.reach)
    rows.clear(out, width)
    reach = stage.size // 2
    for i in range(max(0, h - reach), min(height, h + reach + 1)):
        source = row_at(array, ring_row(rings, stage.first_row, stage.size, i, height))
        add_window(source, reach, out, width)
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
        mean_product(image1, image2, program.channels, k, plane.width)
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
    out: Rows,
    kept: Any,
    tangent: bool,
) -> None:
    """Row `h` through one stage, from its ring to `out`; see `rows` for `kept`."""
    affine = affine_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    width = plane.width
    if stage.size != 3:
        sum_k = summed(rings, rings.k, stage, h, plane.height, width)
        sum_t = summed(rings, rings.t, stage, h, plane.height if stage.tangent else 0, width)
        if stage.rectified:
            rows.rectified(sum_k, sum_t, affine, deviations, out, kept, width, tangent)
        else:
            rows.convolved(sum_k, sum_t, affine, out.k, out.t, width, tangent)
        return
    around_k, around_t = around(rings, stage, h, plane.height)
    if not stage.rectified:
        rows.convolved(around_k, around_t, affine, out.k, out.t, width, tangent)
    elif not tangent and kept is None:
        rows.rectified_alone(around_k, affine, deviations, out, width)
    elif tangent and stage.ntk and not stage.tangent:
        rows.rectified_first(around_k, affine, deviations, out, kept, width)
    elif tangent and stage.ntk and not stage.signed:
        rows.rectified_later(around_k, around_t, affine, deviations, out, kept, width)
    else:
        rows.rectified(around_k, around_t, affine, deviations, out, kept, width, tangent)


@inlined
def enter_and_pass(
    program: Any, stage: Any, plane: Plane, h: int, sides: Sides, rings: Rings, out: Rows, kept: Any
) -> None:
    """Row `h` through the first stage of a network, and row `h + 1` of what enters it."""
    affine = affine_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    (above, here, below), _ = around(rings, stage, h, plane.height)
    p1, p2 = pixel(program, plane, h + 1)
    image1 = row_at(sides.image1, p1 * program.channels)
    image2 = row_at(sides.image2, p2 * program.channels)
    width = plane.width
    if program.channels == 1:
        grey = Grey(image1, image2, below, width)
        rows.rectified_first((above, here, grey), affine, deviations, out, kept, width)
    else:
        colour = Colour(image1, image2, below, width)
        rows.rectified_first((above, here, colour), affine, deviations, out, kept, width)


@inlined
def pool_stage(
    program: Any, stage: Any, plane: Plane, h: int, sides: Sides, rings: Any, planes: Any,
    tangent: bool,
) -> None:  # fmt: skip
    """Row `h` through the last stage of a level that `pools_at_once`."""
    affine = affine_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    around_k, around_t = around(rings, stage, h, plane.height)
    if not tangent:
        alone = coarse_outlet(program, plane, h, rings.columns, planes[0], None)
        rows.rectified_alone(around_k, affine, deviations, alone, plane.width)
        return
    out = coarse_outlet(program, plane, h, rings.columns, planes[0], planes[1])
    if stage.tangent:
        rows.rectified_later(around_k, around_t, affine, deviations, out, None, plane.width)
    else:
        rows.rectified_first(around_k, affine, deviations, out, None, plane.width)


@inlined
def enters_together(program: Any, index: int, tangent: bool) -> bool:
    """Whether the first stage of a network, which is not its level's last, makes what it reads."""
    if index != 0 or not tangent or program.channels not in (1, 3):
        return False
    if program.levels[0].stages < 2:
        return False
    first = program.stages[0]
    return bool(first.size == 3 and first.rectified and first.ntk)


@inlined
def affine_of(stage: Any) -> Affine:
    """What a stage's convolution does to the sums over its windows."""
    return Affine(stage.bias, stage.alpha, stage.beta, stage.factor)


@inlined
def deviations_at(program: Any, stage: Any, plane: Plane, h: int, sides: Sides) -> Deviations:
    """Those of row `h` of a plane."""
    p1, p2 = pixel(program, plane, h)
    return Deviations(
        row_at(sides.s1, stage.map + p1),
        row_at(sides.r1, stage.map + p1),
        row_at(sides.s2, stage.map + p2),
        row_at(sides.r2, stage.map + p2),
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
    at_once = pools_at_once(program, level, tangent)
    together = enters_together(program, plane.level, tangent)
    for time in range(plane.height + level.lag):
        if time < plane.height and (time == 0 or not together):
            at = ring_row(rings, 2, ring_depth(program, level, 0), time, plane.height)
            k, t = row_at(rings.k, at), row_at(rings.t, at)
            enter(program, plane, time, sides, planes[0], planes[1], k, t, tangent)
        h, last = time, 2
        for number in range(level.stages):
            stage = program.stages[level.first_stage + number]
            h -= stage.size // 2
            last = stage.first_row + stage.size
            if 0 <= h < plane.height:
                if at_once and number + 1 == level.stages:
                    pool_stage(program, stage, plane, h, sides, rings, planes, tangent)
                    continue
                depth = ring_depth(program, level, number + 1)
                at = ring_row(rings, last, depth, h, plane.height)
                out = Rows(row_at(rings.k, at), row_at(rings.t, at))
                if together and number == 0 and time < plane.height:
                    enter_and_pass(program, stage, plane, h, sides, rings, out, None)
                else:
                    forward_stage(program, stage, plane, h, sides, rings, out, None, tangent)
        if 0 <= h < plane.height and not at_once:
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
