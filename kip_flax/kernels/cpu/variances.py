"""Variances of the pre-activations, in compiled code: each image with itself, one image a lane.

A level's own variances are its plane at offset 0, where a ReLU halves K. Once they are known, all
planes of the level go through `forward_plane` like those of any pair, without T. The band is
that of `plan.variance_plan`.
"""

from typing import Any

import numpy as np

from kip_flax.kernels.cpu.compiled import entry, rare
from kip_flax.kernels.cpu.gradient_planes import backward_plane
from kip_flax.kernels.cpu.gradient_stages import Gradients, Work
from kip_flax.kernels.cpu.planes import forward_plane
from kip_flax.kernels.cpu.pooling import cell_row
from kip_flax.kernels.cpu.rings import plane_at
from kip_flax.kernels.cpu.sides import (
    aligned,
    from_lanes,
    inverse,
    lay_out_pairs,
    pair_sides,
    to_lanes,
)
from kip_flax.kernels.cpu.vectors import LANES
from kip_flax.kernels.cpu.walk import make_kept, make_rings, room_for_planes


@entry
def variances_forward(program: Any, x: Any, variances: Any, ends: Any) -> None:
    """Writes the variances (m, maps) of images x (m, ...) before each ReLU, and (m,) at the end."""
    sides, planes = pair_sides(program, x), room_for_planes(program, x)
    totals, rings = aligned(x, 2), make_rings(program, x)
    found = aligned(x, program.maps)
    for first in range(0, len(x), LANES):
        count = min(LANES, len(x) - first)
        to_lanes(x, first, count, sides.image2)
        sides.image1[:] = sides.image2 * program.image_factor
        planes[0][:] = 0
        totals[:] = 0
        for index in range(len(program.levels)):
            _level_forward(program, index, sides, planes[0], found)
            for number in range(program.levels[index].offsets):
                plane = plane_at(program, index, number)
                forward_plane(program, plane, sides, planes, totals, rings, False)
        from_lanes(found, first, count, variances)
        for lane in range(count):
            ends[first + lane] = totals[0, lane] * program.share


@entry
def variances_backward(
    program: Any, x: Any, variances: Any, g_variances: Any, g_ends: Any, grad_x: Any
) -> None:
    """Writes the images' gradient (m, ...), given the cotangents of `variances_forward`'s result.

    Planes that no cotangent goes back through are skipped. If `g_ends` is zero, these are the
    planes of the last level whose variances have cotangents, and of all later levels.
    """
    deviations = np.sqrt(variances)
    sides, planes = pair_sides(program, x), room_for_planes(program, x)
    totals, arriving = aligned(x, 2), aligned(x, 2)
    rings, g_rings = make_rings(program, x), make_rings(program, x)
    work = Work(planes, arriving, rings, g_rings, make_kept(program, x, rings))
    gradients = Gradients(aligned(x, x.shape[1]), aligned(x, program.maps))
    g_found = aligned(x, program.maps)
    for first in range(0, len(x), LANES):
        count = min(LANES, len(x) - first)
        lay_out_pairs(program, x, deviations, x, deviations, first, count, sides)
        to_lanes(g_variances, first, count, g_found)
        planes[0][:] = 0
        gradients.image[:] = 0
        gradients.s[:] = 0
        arriving[:] = 0
        for lane in range(count):
            arriving[0, lane] = g_ends[first + lane] * program.share
        through_end = arriving.any()
        last = len(program.levels) - 1 if through_end else _last_level(program, g_found)
        # The input of a skipped level stays 0: its cotangents take its place, and start from 0.
        for index in range(last if through_end else last - 1):
            for number in range(program.levels[index].offsets):
                plane = plane_at(program, index, number)
                forward_plane(program, plane, sides, planes, totals, rings, False)
        for index in range(last, -1, -1):
            passing = index < last or through_end
            for number in range(program.levels[index].offsets if passing else 0):
                plane = plane_at(program, index, number)
                backward_plane(program, plane, sides, work, gradients, False)
            own = _level_backward(program, index, sides, g_found, gradients.s)
            _to_level_input(program, index, sides, own, planes[0], gradients.image)
        # Both sides are the same image: each cotangent counts twice.
        gradients.image[:] *= 2 * program.image_factor
        from_lanes(gradients.image, first, count, grad_x)


@rare
def _last_level(program: Any, g_variances: Any) -> int:
    """The last level whose variances have cotangents; 0 if none has."""
    last = 0
    for index in range(len(program.levels)):
        level = program.levels[index]
        for number in range(level.stages):
            stage = program.stages[level.first_stage + number]
            size = level.height * level.width if stage.rectified else 0
            if g_variances[stage.map : stage.map + size].any():
                last = index
    return last


@rare
def _level_forward(program: Any, index: int, sides: Any, planes: Any, variances: Any) -> None:
    """Computes a level's own variances and, from them, both sides' deviations."""
    level = program.levels[index]
    own = _entering(program, index, sides, planes)
    for number in range(level.stages):
        stage = program.stages[level.first_stage + number]
        own = _window_sums(own, level.height, level.width, stage.size // 2)
        for i in range(len(own)):
            at = stage.map + i
            for lane in range(LANES):
                v = own[i, lane] + stage.bias
                own[i, lane] = v * stage.factor
                if stage.rectified:
                    own[i, lane] *= 0.5
                    s = np.sqrt(v)
                    variances[at, lane] = v
                    sides.s1[at, lane] = s * program.deviation_factors[at]
                    sides.s2[at, lane] = s
                    sides.r1[at, lane] = sides.r2[at, lane] = inverse(s)


@rare
def _level_backward(program: Any, index: int, sides: Any, g_variances: Any, gs: Any) -> Any:
    """The cotangent (pixels, LANES) of a level's input at offset 0, via the level's variances."""
    level = program.levels[index]
    own = aligned(sides.image2, level.height * level.width)
    for number in range(level.stages - 1, -1, -1):
        stage = program.stages[level.first_stage + number]
        for i in range(len(own)):
            at = stage.map + i
            for lane in range(LANES):
                own[i, lane] *= stage.factor
                if stage.rectified:
                    through = gs[at, lane] * program.deviation_factors[at] * sides.r2[at, lane]
                    own[i, lane] = own[i, lane] * 0.5 + g_variances[at, lane] + through
        own = _window_sums(own, level.height, level.width, stage.size // 2)
    return own


@rare
def _entering(program: Any, index: int, sides: Any, planes: Any) -> Any:
    """Offset 0 of a level's input, (pixels, LANES)."""
    level = program.levels[index]
    own = aligned(sides.image2, level.height * level.width)
    if index:
        for h in range(level.height):
            begin = cell_row(program, index, h, 0, 0)
            own[h * level.width : (h + 1) * level.width] = planes[begin : begin + level.width]
        return own
    for i in range(len(own)):
        for j in range(i * program.channels, (i + 1) * program.channels):
            for lane in range(LANES):
                own[i, lane] += sides.image1[j, lane] * sides.image2[j, lane]
    return own


@rare
def _to_level_input(
    program: Any, index: int, sides: Any, own: Any, planes: Any, g_image: Any
) -> None:
    """Adds the transpose of `_entering` to the cotangents of one of the two sides."""
    level = program.levels[index]
    if index:
        for h in range(level.height):
            begin = cell_row(program, index, h, 0, 0)
            planes[begin : begin + level.width] += own[h * level.width : (h + 1) * level.width]
        return
    for i in range(len(own)):
        for j in range(i * program.channels, (i + 1) * program.channels):
            for lane in range(LANES):
                g_image[j, lane] += own[i, lane] * sides.image2[j, lane]


@rare
def _window_sums(maps: Any, height: int, width: int, reach: int) -> Any:
    """Sums over (2 reach + 1)^2 windows of maps (height * width, LANES), zero outside."""
    rows, out = np.zeros_like(maps), aligned(maps, len(maps))
    for h in range(height):
        for w in range(width):
            for j in range(max(0, w - reach), min(width, w + reach + 1)):
                for lane in range(LANES):
                    rows[h * width + w, lane] += maps[h * width + j, lane]
    for h in range(height):
        for i in range(max(0, h - reach), min(height, h + reach + 1)):
            for p in range(width):
                for lane in range(LANES):
                    out[h * width + p, lane] += rows[i * width + p, lane]
    return out
