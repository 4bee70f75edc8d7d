"""Takes a tile through all levels: forward to its kernel, back to its fixed side's gradient."""

from typing import Any

import numpy as np

from kip_flax.kernels.cpu.compiled import loop, rare
from kip_flax.kernels.cpu.gradient_planes import backward_plane
from kip_flax.kernels.cpu.gradient_stages import Gradients, Work
from kip_flax.kernels.cpu.planes import forward_plane
from kip_flax.kernels.cpu.rings import Rings, plane_at
from kip_flax.kernels.cpu.sides import Sides, aligned
from kip_flax.kernels.cpu.vectors import LANES


@rare
def room_for_planes(program: Any, like: Any) -> Any:
    """Arrays for K and T of the inputs of all levels but the first."""
    return aligned(like, program.cells), aligned(like, program.cells)


@rare
def make_rings(program: Any, like: Any) -> Rings:
    """Rings of rows that fit any plane of the program."""
    width = reach = count = window = 0
    for level in program.levels:
        width, reach = max(width, level.width), max(reach, level.reach)
        window, rows = max(window, level.window), 4
        for number in range(level.stages):
            rows += program.stages[level.first_stage + number].size
        count = max(count, rows)
    length = width + 2 * reach
    columns = np.zeros((window + 1, 4), np.int64)
    # A row more: those who read the row of `rings.summed` read on, up to two columns past it.
    k, t = aligned(like, (count + 1) * length), aligned(like, (count + 1) * length)
    return Rings(k, t, length, reach, columns)


@rare
def make_kept(program: Any, like: Any, rings: Rings) -> Any:
    """Room for the rows that the backward pass keeps."""
    count = 0
    for stage in program.stages:
        count = max(count, stage.first_kept + stage.kept)
    return aligned(like, 4 * count * rings.length)


@loop
def forward(
    program: Any, sides: Sides, planes: Any, ends: Any, rings: Rings, tangent: bool, levels: int
) -> None:
    """Takes a tile through the first `levels` levels.

    Fills `planes`, which are K and T of the inputs of the levels after the first, and `ends`
    (2, LANES), which are K and T of the tile's pairs if `levels` is the number of all levels.
    """
    planes[0][:] = 0
    planes[1][:] = 0
    ends[:] = 0
    for index in range(levels):
        for number in range(program.levels[index].offsets):
            plane = plane_at(program, index, number)
            forward_plane(program, plane, sides, planes, ends, rings, tangent)
    for which in range(2):
        for lane in range(LANES):
            ends[which, lane] *= program.share


@loop
def backward(program: Any, sides: Sides, work: Work, gradients: Gradients, tangent: bool) -> None:
    """Adds the gradient of the fixed side, given the cotangents of a tile's K and T.

    `work.planes` are those that `forward` filled; `work.g_ends` already contains `program.share`.
    """
    for index in range(len(program.levels) - 1, -1, -1):
        for number in range(program.levels[index].offsets):
            plane = plane_at(program, index, number)
            backward_plane(program, plane, sides, work, gradients, tangent)
