"""One plane backward: the rows of `planes` once more, and their transpose some rows behind.

In one pass a row goes forward through the stages of its level, which keep what the derivatives
need, and as soon as the rows that read it have their cotangents, backward: box sums are their own
transpose, so a stage's cotangents sit in a ring as high as its window. The last stage turns at
once. The cotangent that arrives at a level's end is that of its pooled planes, or one number a
pair.
"""

from typing import Any, NamedTuple

import numpy as np

from kip_flax.kernels.cpu import gradient_rows, rows
from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.planes import (
    Plane,
    Rings,
    Sides,
    around3,
    clear_right,
    enter,
    pixel,
    ring_depth,
    ring_row,
    summed,
)
from kip_flax.kernels.cpu.pooling import cell_row, coarse_columns, distribute
from kip_flax.kernels.cpu.vectors import load, row_at


class Gradients(NamedTuple):
    """What is added up over the planes: cotangents of the fixed side, a vector of lanes each.

    `image` (pixels * channels, LANES) is that of the image divided by its channels, `s` (pixels,
    LANES) that of the deviations; both without the factors that the program has.
    """

    image: np.ndarray
    s: np.ndarray


class Work(NamedTuple):
    """All that one tile needs going backward.

    `planes` are K and T of what enters the levels but the first; each plane's cotangents take its
    place. `g_ends` (2, LANES) are the cotangents of K and T at the end. `rings`, `g_rings` are the
    rows in flight, forward and backward, row 1 of the latter being for what arrives. `kept` has
    four rows for every row of a stage that is in flight.
    """

    planes: tuple[np.ndarray, np.ndarray]
    g_ends: np.ndarray
    rings: Rings
    g_rings: Rings
    kept: np.ndarray


@loop
def backward_plane(
    program: Any, plane: Plane, sides: Sides, work: Work, gradients: Gradients, tangent: bool
) -> None:
    """Takes the cotangents of one plane to what entered its level and to the fixed side."""
    level = program.levels[plane.level]
    rings, g_rings = work.rings, work.g_rings
    for array in (rings.k, rings.t, g_rings.k, g_rings.t):
        clear_right(rings, array, plane.width)
    coarse_columns(program, plane, rings.columns)
    last = level.first_stage + level.stages - 1
    for time in range(plane.height + 2 * level.lag):
        h = advance(program, plane, time, sides, work, tangent)
        if 0 <= h < plane.height:
            arrive(program, plane, h, work, tangent)
            if level.stages:
                turn(program, program.stages[last], plane, h, sides, work, gradients, tangent)
        for back in range(level.stages):
            stage = program.stages[last - back]
            h -= stage.size // 2
            if 0 <= h < plane.height:
                if back + 1 < level.stages:
                    before = program.stages[last - back - 1]
                    retreat(program, before, stage, plane, h, sides, work, gradients, tangent)
                else:
                    leave(program, stage, plane, h, sides, work, gradients, tangent)
        if 0 <= h < plane.height and not level.stages:
            leave_as_arrived(program, plane, h, sides, work, gradients, tangent)


@inlined
def advance(program: Any, plane: Plane, time: int, sides: Sides, work: Work, tangent: bool) -> int:
    """One more row through every stage but the last; returns which row is the last one's."""
    level, rings = program.levels[plane.level], work.rings
    if time < plane.height:
        at = ring_row(rings, 2, ring_depth(program, level, 0), time, plane.height)
        k, t = row_at(rings.k, at), row_at(rings.t, at)
        enter(program, plane, time, sides, work.planes[0], work.planes[1], k, t, tangent)
    h = time
    for number in range(level.stages):
        stage = program.stages[level.first_stage + number]
        h -= stage.size // 2
        if 0 <= h < plane.height and number + 1 < level.stages:
            depth = ring_depth(program, level, number + 1)
            out = ring_row(rings, stage.first_row + stage.size, depth, h, plane.height)
            keep = kept_rows(stage, work, h)
            k, t = row_at(rings.k, out), row_at(rings.t, out)
            forward_keeping(program, stage, plane, h, sides, rings, k, t, keep, tangent)
    return h


@inlined
def kept_rows(stage: Any, work: Work, h: int) -> Any:
    """The four rows in which a stage keeps what row `h` of its derivative needs."""
    length = work.rings.length
    at = (stage.first_kept + h % stage.kept) * 4 * length
    return (
        row_at(work.kept, at),
        row_at(work.kept, at + length),
        row_at(work.kept, at + 2 * length),
        row_at(work.kept, at + 3 * length),
    )


@inlined
def forward_keeping(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    rings: Rings,
    k: Any,
    t: Any,
    keep: Any,
    tangent: bool,
) -> None:
    """`planes.forward_stage`, which also keeps."""
    if stage.size == 3:
        around_k = around3(rings, rings.k, stage.first_row, h, plane.height)
        height = plane.height if stage.tangent else 0
        around_t = around3(rings, rings.t, stage.first_row, h, height)
        through_keeping(program, stage, plane, h, sides, around_k, around_t, k, t, keep, tangent)
    else:
        sum_k = summed(rings, rings.k, stage, h, plane.height, plane.width)
        sum_t = summed(rings, rings.t, stage, h, plane.height if stage.tangent else 0, plane.width)
        through_keeping(program, stage, plane, h, sides, sum_k, sum_t, k, t, keep, tangent)


@inlined
def through_keeping(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    around_k: Any,
    around_t: Any,
    k: Any,
    t: Any,
    keep: Any,
    tangent: bool,
) -> None:
    """`planes.through`, which also keeps."""
    scale, bias, alpha, beta = stage.scale, stage.bias, stage.alpha, stage.beta
    width = plane.width
    if not stage.rectified:
        rows.convolved(around_k, around_t, scale, bias, alpha, beta, k, t, width, tangent)
        return
    p1, p2 = pixel(program, plane, h)
    s1, r1 = row_at(sides.s1, stage.map + p1), row_at(sides.r1, stage.map + p1)
    s2, r2 = row_at(sides.s2, stage.map + p2), row_at(sides.r2, stage.map + p2)
    if tangent and stage.ntk and not stage.tangent:
        gradient_rows.rectified_first(around_k, scale, bias, s1, r1, s2, r2, k, t, keep, width)
    elif tangent and stage.ntk and not stage.signed:
        gradient_rows.rectified_later(
            around_k, around_t, scale, bias, s1, r1, s2, r2, k, t, keep, width
        )
    else:
        gradient_rows.rectified(
            around_k, around_t, scale, bias, alpha, beta, s1, r1, s2, r2, k, t, keep, width, tangent
        )  # fmt: skip


@inlined
def arrived(work: Work) -> Any:
    """The rows of K's and T's cotangents that have arrived at the end of the level."""
    at = work.g_rings.length + work.g_rings.reach
    return row_at(work.g_rings.k, at), row_at(work.g_rings.t, at)


@inlined
def arrive(program: Any, plane: Plane, h: int, work: Work, tangent: bool) -> None:
    """The cotangents of row `h` of a finished plane."""
    gk, gt = arrived(work)
    columns = work.rings.columns
    pooled = program.levels[plane.level].pooled
    if pooled:
        rows.clear(gk, plane.width)
        distribute(program, plane, h, columns, work.planes[0], gk)
    else:
        rows.fill(gk, load(row_at(work.g_ends, 0), 0), plane.width)
    if tangent and pooled:
        rows.clear(gt, plane.width)
        distribute(program, plane, h, columns, work.planes[1], gt)
    elif tangent:
        rows.fill(gt, load(row_at(work.g_ends, 1), 0), plane.width)


@inlined
def turn(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    """Row `h` through the last stage of a level and back at once."""
    rings = work.rings
    if stage.size == 3:
        around_k = around3(rings, rings.k, stage.first_row, h, plane.height)
        height = plane.height if stage.tangent else 0
        around_t = around3(rings, rings.t, stage.first_row, h, height)
        turn_around(program, stage, plane, h, sides, around_k, around_t, work, gradients, tangent)
    else:
        sum_k = summed(rings, rings.k, stage, h, plane.height, plane.width)
        sum_t = summed(rings, rings.t, stage, h, plane.height if stage.tangent else 0, plane.width)
        turn_around(program, stage, plane, h, sides, sum_k, sum_t, work, gradients, tangent)


@inlined
def turn_around(
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
    scale, bias, alpha, beta = stage.scale, stage.bias, stage.alpha, stage.beta
    width = plane.width
    gk, gt = arrived(work)
    gb, gu = ring_of(work.g_rings, stage, h, plane)
    if not stage.rectified:
        gradient_rows.convolved_back((gk,), (gt,), alpha, gb, gu, width, tangent)
        return
    p1, p2 = pixel(program, plane, h)
    r1, s2 = row_at(sides.r1, stage.map + p1), row_at(sides.s2, stage.map + p2)
    r2, gs = row_at(sides.r2, stage.map + p2), row_at(gradients.s, stage.map + p1)
    if tangent and stage.ntk and not stage.signed:
        gradient_rows.turned_later(
            around_k, around_t, scale, bias, r1, s2, r2, gk, gt, gb, gu, gs, width
        )
    else:
        gradient_rows.turned(
            around_k, around_t, scale, bias, alpha, beta, r1, s2, r2, gk, gt, gb, gu, gs, width,
            tangent,
        )  # fmt: skip


@inlined
def ring_of(rings: Rings, stage: Any, h: int, plane: Plane) -> Any:
    """Row `h` of a stage's rings of K and of T."""
    at = ring_row(rings, stage.first_row, stage.size, h, plane.height)
    return row_at(rings.k, at), row_at(rings.t, at)


@inlined
def retreat(
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
    """Row `h` backward through a stage, from the cotangents of what stage `after` read."""
    g_rings = work.g_rings
    if after.size == 3:
        around_k = around3(g_rings, g_rings.k, after.first_row, h, plane.height)
        around_t = around3(g_rings, g_rings.t, after.first_row, h, plane.height)
        back_through(program, stage, plane, h, sides, around_k, around_t, work, gradients, tangent)
    else:
        sum_k = summed(g_rings, g_rings.k, after, h, plane.height, plane.width)
        sum_t = summed(g_rings, g_rings.t, after, h, plane.height, plane.width)
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
    if not stage.rectified:
        gradient_rows.convolved_back(around_k, around_t, stage.alpha, gb, gu, plane.width, tangent)
        return
    p1, p2 = pixel(program, plane, h)
    gradient_rows.rectified_back(
        around_k, around_t, kept_rows(stage, work, h), stage.alpha,
        row_at(sides.s2, stage.map + p2), gb, gu, row_at(gradients.s, stage.map + p1),
        plane.width, tangent,
    )  # fmt: skip


@inlined
def leave(
    program: Any,
    stage: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    """Row `h` of the cotangents of what entered the level, from those of its first stage."""
    g_rings = work.g_rings
    if stage.size == 3:
        around_k = around3(g_rings, g_rings.k, stage.first_row, h, plane.height)
        around_t = around3(g_rings, g_rings.t, stage.first_row, h, plane.height)
        leave_as(program, plane, h, sides, around_k, around_t, work, gradients, tangent)
    else:
        sum_k = summed(g_rings, g_rings.k, stage, h, plane.height, plane.width)
        sum_t = summed(g_rings, g_rings.t, stage, h, plane.height, plane.width)
        leave_as(program, plane, h, sides, sum_k, sum_t, work, gradients, tangent)


@inlined
def leave_as_arrived(
    program: Any,
    plane: Plane,
    h: int,
    sides: Sides,
    work: Work,
    gradients: Gradients,
    tangent: bool,
) -> None:
    """The same where the level has no stages."""
    gk, gt = arrived(work)
    leave_as(program, plane, h, sides, (gk,), (gt,), work, gradients, tangent)


@inlined
def leave_as(
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
