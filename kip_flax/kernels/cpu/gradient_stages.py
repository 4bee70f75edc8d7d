"""The backward pass of one row of a plane through one stage.

Cotangents come to a level's end from the pooled planes, or as one number per pair. The last stage
goes forward and back at once, the others go back later, and the level's input gets the result. Box
sums are their own transpose, so a stage's cotangents are kept in a ring as high as its window.
"""

from typing import Any, NamedTuple

import numpy as np

from kip_flax.kernels.cpu import gradient_rows, rows
from kip_flax.kernels.cpu.compiled import inlined
from kip_flax.kernels.cpu.outlets import Rows
from kip_flax.kernels.cpu.pooling import cell_row, coarse_outlet, distribute
from kip_flax.kernels.cpu.rings import Plane, Rings, around, pixel, ring_row, summed
from kip_flax.kernels.cpu.sides import Sides
from kip_flax.kernels.cpu.stages import coefficients_of, deviations_at
from kip_flax.kernels.cpu.vectors import load, row_at


class Gradients(NamedTuple):
    """Cotangents of the fixed side, added up over the planes: a vector of lanes each.

    `image` is (pixels * channels, LANES). `s` (maps, LANES) belongs to the deviations. Both are
    without the program's factors of the image and the deviations.
    """

    image: np.ndarray
    s: np.ndarray


class Work(NamedTuple):
    """The work space of the backward pass of one tile.

    `planes` are K and T of the inputs of the levels after the first; each plane is overwritten by
    its cotangents. `g_ends` (2, LANES) are the cotangents of K and T at the end. `rings` and
    `g_rings` have the rows in flight, forward and backward; row 1 of `g_rings` takes the cotangents
    of the level's end. `kept` has four rows for every row of a stage that is in flight.
    """

    planes: tuple[np.ndarray, np.ndarray]
    g_ends: np.ndarray
    rings: Rings
    g_rings: Rings
    kept: np.ndarray


@inlined
def kept_rows(stage: Any, work: Work, h: int) -> Any:
    """The four rows in which a stage keeps the operands of its derivative at row `h`."""
    length = work.rings.length
    at = (stage.first_kept + h % stage.kept) * 4 * length
    return (
        row_at(work.kept, at),
        row_at(work.kept, at + length),
        row_at(work.kept, at + 2 * length),
        row_at(work.kept, at + 3 * length),
    )


@inlined
def end_rows(work: Work) -> Rows:
    """The rows of K's and T's cotangents at the end of the level."""
    at = work.g_rings.length + work.g_rings.reach
    return Rows(row_at(work.g_rings.k, at), row_at(work.g_rings.t, at))


@inlined
def fill_end_rows(program: Any, plane: Plane, h: int, work: Work, tangent: bool) -> None:
    """Writes the cotangents of row `h` of a finished plane to `end_rows`."""
    g = end_rows(work)
    columns = work.rings.columns
    pooled = program.levels[plane.level].pooled
    if pooled:
        rows.clear(g.k, plane.width)
        distribute(program, plane, h, columns, work.planes[0], g.k)
    else:
        rows.fill(g.k, load(row_at(work.g_ends, 0), 0), plane.width)
    if tangent and pooled:
        rows.clear(g.t, plane.width)
        distribute(program, plane, h, columns, work.planes[1], g.t)
    elif tangent:
        rows.fill(g.t, load(row_at(work.g_ends, 1), 0), plane.width)


@inlined
def through_last_stage(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    """Takes row `h` through a level's last stage and back at once, from `end_rows`."""
    rings, width = work.rings, plane.width
    coefficients = coefficients_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    source, (gb, gu) = end_rows(work), ring_of(work.g_rings, stage, h, plane)
    gs = deviation_gradient(program, stage, plane, h, gradients)
    if not stage.rectified:
        gradient_rows.convolved_back((source.k,), (source.t,), coefficients, gb, gu, width, tangent)
    elif stage.size == 3:
        around_k, around_t = around(rings, stage, h, plane.height)
        if tangent and stage.ntk and not stage.signed:
            gradient_rows.rectified_later_forward_back(
                around_k, around_t, coefficients, deviations, source, gb, gu, gs, width
            )
        else:
            gradient_rows.rectified_forward_back(
                around_k, around_t, coefficients, deviations, source, gb, gu, gs, width, tangent
            )
    else:
        sum_k = summed(rings, rings.k, stage, h, plane.height, width)
        sum_t = summed(rings, rings.t, stage, h, plane.height if stage.tangent else 0, width)
        gradient_rows.rectified_forward_back(
            sum_k, sum_t, coefficients, deviations, source, gb, gu, gs, width, tangent
        )


@inlined
def through_last_stage_from_pool(
    program: Any, stage: Any, plane: Plane, h: int, sides: Sides, work: Work, gradients: Gradients
) -> None:
    """`through_last_stage` from the next level's planes: it `pools_at_once`, and T exists."""
    coefficients = coefficients_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    around_k, around_t = around(work.rings, stage, h, plane.height)
    planes = work.planes
    source = coarse_outlet(program, plane, h, work.rings.columns, planes[0], planes[1])
    gb, gu = ring_of(work.g_rings, stage, h, plane)
    gs = deviation_gradient(program, stage, plane, h, gradients)
    gradient_rows.rectified_later_forward_back(
        around_k, around_t, coefficients, deviations, source, gb, gu, gs, plane.width
    )


@inlined
def ring_of(rings: Rings, stage: Any, h: int, plane: Plane) -> Any:
    """Row `h` of a stage's rings of K and of T."""
    at = ring_row(rings, stage.first_row, stage.size, h, plane.height)
    return row_at(rings.k, at), row_at(rings.t, at)


@inlined
def deviation_gradient(program: Any, stage: Any, plane: Plane, h: int, gradients: Gradients) -> Any:
    """The row in which the cotangents of the deviations of row `h` are added up."""
    return row_at(gradients.s, stage.map + pixel(program, plane, h)[0])


@inlined
def stage_back(
    program: Any,
    stage: Any,
    after: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    """Takes row `h` back through a stage, given the cotangents of the input of stage `after`."""
    g_rings, height = work.g_rings, plane.height
    if after.size == 3:
        around_k, around_t = around(g_rings, after, h, height)
        back_through(program, stage, plane, h, sides, around_k, around_t, work, gradients, tangent)
    else:
        sum_k = summed(g_rings, g_rings.k, after, h, height, plane.width)
        sum_t = summed(g_rings, g_rings.t, after, h, height, plane.width)
        back_through(program, stage, plane, h, sides, sum_k, sum_t, work, gradients, tangent)


@inlined
def back_through(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    around_k: Any,
    around_t: Any,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    gb, gu = ring_of(work.g_rings, stage, h, plane)
    coefficients = coefficients_of(stage)
    if not stage.rectified:
        gradient_rows.convolved_back(around_k, around_t, coefficients, gb, gu, plane.width, tangent)
        return
    s2 = row_at(sides.s2, stage.map + pixel(program, plane, h)[1])
    gs = deviation_gradient(program, stage, plane, h, gradients)
    kept = kept_rows(stage, work, h)
    if tangent and stage.ntk and not stage.tangent and stage.size == 3:
        gradient_rows.first_back(around_k, around_t, kept, coefficients, s2, gb, gs, plane.width)
        return
    gradient_rows.rectified_back(
        around_k, around_t, kept, coefficients, s2, gb, gu, gs, plane.width, tangent
    )


@inlined
def to_level_input(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    """Passes row `h` of the cotangents from a level's first stage to the level's input."""
    g_rings, height = work.g_rings, plane.height
    if stage.size == 3:
        around_k, around_t = around(g_rings, stage, h, height)
        sums_to_level_input(program, plane, h, sides, around_k, around_t, work, gradients, tangent)
    else:
        sum_k = summed(g_rings, g_rings.k, stage, h, height, plane.width)
        sum_t = summed(g_rings, g_rings.t, stage, h, height, plane.width)
        sums_to_level_input(program, plane, h, sides, sum_k, sum_t, work, gradients, tangent)


@inlined
def end_rows_to_level_input(
    program: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    """Like `to_level_input`, for a level without stages."""
    g = end_rows(work)
    sums_to_level_input(program, plane, h, sides, (g.k,), (g.t,), work, gradients, tangent)


@inlined
def sums_to_level_input(
    program: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    around_k: Any,
    around_t: Any,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    if plane.level == 0:
        channels = program.channels
        p1, p2 = pixel(program, plane, h)
        image2 = row_at(sides.image2, p2 * channels)
        out = row_at(gradients.image, p1 * channels)
        gradient_rows.add_image_gradient(around_k, image2, channels, out, plane.width)
        return
    begin = cell_row(program, plane.level, plane.top + h, plane.oh, plane.ow) + plane.left
    gradient_rows.summed(around_k, row_at(work.planes[0], begin), plane.width)
    if tangent:
        gradient_rows.summed(around_t, row_at(work.planes[1], begin), plane.width)
