"""Variances of the pre-activations, in compiled code and float64: each image with itself.

A level's own variances are its plane at offset 0, where a ReLU halves K. With them known, all
planes of the level go through `forward_plane` as those of any pair do, without T. The band is
thinner than that of a pair: see `band.variance_plan`.
"""

from typing import Any

import numpy as np

from kip_flax.kernels.cpu.compiled import entry, rare
from kip_flax.kernels.cpu.gradient_planes import Gradients, Work, backward_plane
from kip_flax.kernels.cpu.planes import forward_plane, plane_at
from kip_flax.kernels.cpu.pooling import cell_row
from kip_flax.kernels.cpu.sides import aligned, inverse, lay_out_pairs, pair_sides
from kip_flax.kernels.cpu.vectors import LANES
from kip_flax.kernels.cpu.walk import make_kept, make_rings, room_for_planes


@entry
def variances_forward(program: Any, x: Any, variances: Any, ends: Any) -> None:
    """Variances (m, maps) before each ReLU of images x (m, ...), and (m,) at the end."""
    sides, planes = pair_sides(program, x), room_for_planes(program, x)
    totals, rings = aligned(x, 2), make_rings(program, x)
    for first in range(0, len(x), LANES):
        count = min(LANES, len(x) - first)
        lay_out_pairs(program, x, variances, x, variances, first, count, sides)
        planes[0][:] = 0
        totals[:] = 0
        for index in range(len(program.levels)):
            _level_forward(program, index, x, first, count, variances, sides, planes[0])
            for number in range(program.levels[index].offsets):
                plane = plane_at(program, index, number)
                forward_plane(program, plane, sides, planes, totals, rings, False)
        for lane in range(count):
            ends[first + lane] = totals[0, lane] * program.share


@entry
def variances_backward(
    program: Any, x: Any, variances: Any, g_variances: Any, g_ends: Any, grad_x: Any
) -> None:
    """Gradient (m, ...) of the images from the cotangents of what `variances_forward` made."""
    deviations = np.sqrt(variances)
    sides, planes = pair_sides(program, x), room_for_planes(program, x)
    totals, arriving = aligned(x, 2), aligned(x, 2)
    rings, g_rings = make_rings(program, x), make_rings(program, x)
    work = Work(planes, arriving, rings, g_rings, make_kept(program, x, rings))
    gradients = Gradients(aligned(x, x.shape[1]), aligned(x, program.maps))
    last = len(program.levels) - 1
    for first in range(0, len(x), LANES):
        count = min(LANES, len(x) - first)
        lay_out_pairs(program, x, deviations, x, deviations, first, count, sides)
        planes[0][:] = 0
        gradients.image[:] = 0
        gradients.s[:] = 0
        arriving[:] = 0
        for lane in range(count):
            arriving[0, lane] = g_ends[first + lane] * program.share
        for index in range(last):
            for number in range(program.levels[index].offsets):
                plane = plane_at(program, index, number)
                forward_plane(program, plane, sides, planes, totals, rings, False)
        for index in range(last, -1, -1):
            for number in range(program.levels[index].offsets):
                plane = plane_at(program, index, number)
                backward_plane(program, plane, sides, work, gradients, False)
            for lane in range(count):
                # Both sides are the same image: each cotangent counts twice.
                own = _level_backward(
                    program, index, first + lane, lane, deviations, g_variances, gradients.s
                )
                _leave(program, index, x, first + lane, lane, own, planes[0], grad_x)
        for lane in range(count):
            scale = 2 * program.image_factor / program.channels
            for i in range(x.shape[1]):
                grad_x[first + lane, i] += gradients.image[i, lane] * scale


@rare
def _level_forward(
    program: Any,
    index: int,
    x: Any,
    first: int,
    count: int,
    variances: Any,
    sides: Any,
    planes: Any,
) -> None:
    """A level's own variances, and from them both sides' deviations."""
    level = program.levels[index]
    for lane in range(count):
        own = _entering(program, index, x, first + lane, lane, planes)
        for number in range(level.stages):
            stage = program.stages[level.first_stage + number]
            own = _window_sums(own, stage.size // 2) * stage.scale + stage.bias
            if not stage.rectified:
                continue
            flat = own.ravel()
            for i in range(len(flat)):
                at = stage.map + i
                s = np.sqrt(flat[i])
                variances[first + lane, at] = flat[i]
                sides.s1[at, lane], sides.r1[at, lane] = s / (2 * np.pi), inverse(s)
                sides.s2[at, lane], sides.r2[at, lane] = s, inverse(s)
            own = own / 2


@rare
def _level_backward(
    program: Any, index: int, row: int, lane: int, deviations: Any, g_variances: Any, gs: Any
) -> Any:
    """The cotangent (height, width) of what entered a level at offset 0, as far as it comes through
    the level's variances."""
    level = program.levels[index]
    own = np.zeros((level.height, level.width))
    for number in range(level.stages - 1, -1, -1):
        stage = program.stages[level.first_stage + number]
        if stage.rectified:
            own = own / 2
            for h in range(level.height):
                for w in range(level.width):
                    at = stage.map + h * level.width + w
                    through = gs[at, lane] * program.factors[at] * inverse(deviations[row, at])
                    own[h, w] += g_variances[row, at] + through
        own = _window_sums(own, stage.size // 2) * stage.scale
    return own


@rare
def _entering(program: Any, index: int, x: Any, row: int, lane: int, planes: Any) -> Any:
    """Offset 0 of what enters a level, (height, width)."""
    level = program.levels[index]
    own = np.zeros((level.height, level.width))
    for h in range(level.height):
        for w in range(level.width):
            if index:
                own[h, w] = planes[cell_row(program, index, h, 0, 0) + w, lane]
            else:
                begin = (h * level.width + w) * program.channels
                for c in range(begin, begin + program.channels):
                    own[h, w] += x[row, c] ** 2 / program.channels
    return own


@rare
def _leave(
    program: Any, index: int, x: Any, row: int, lane: int, own: Any, planes: Any, grad_x: Any
) -> None:
    """The transpose of `_entering`, added to the cotangents."""
    level = program.levels[index]
    for h in range(level.height):
        for w in range(level.width):
            if index:
                at = cell_row(program, index, h, 0, 0) + w
                planes[at, lane] += own[h, w] / program.entry_factors[index]
            else:
                begin = (h * level.width + w) * program.channels
                for c in range(begin, begin + program.channels):
                    grad_x[row, c] += 2 * x[row, c] * own[h, w] / program.channels


@rare
def _window_sums(maps: Any, reach: int) -> Any:
    """Sums over (2 reach + 1)^2 windows, zero outside."""
    height, width = maps.shape
    out = np.zeros((height, width))
    for h in range(height):
        for w in range(width):
            for i in range(max(0, h - reach), min(height, h + reach + 1)):
                for j in range(max(0, w - reach), min(width, w + reach + 1)):
                    out[h, w] += maps[i, j]
    return out
