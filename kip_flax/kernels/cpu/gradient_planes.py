"""The backward pass of one plane: the forward pass again, and its transpose some rows behind.

In one pass, a row goes forward through the stages of its level, which keep what the derivatives
need. It goes back as soon as the rows that read it have their cotangents.
"""

from typing import Any

from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.gradient_stages import (
    Gradients,
    Work,
    end_rows_to_level_input,
    fill_end_rows,
    kept_rows,
    stage_back,
    through_last_stage,
    through_last_stage_from_pool,
    to_level_input,
)
from kip_flax.kernels.cpu.outlets import Rows
from kip_flax.kernels.cpu.pooling import coarse_columns, pools_at_once
from kip_flax.kernels.cpu.rings import Plane, clear_right, ring_depth, ring_row
from kip_flax.kernels.cpu.sides import Sides
from kip_flax.kernels.cpu.stages import enter, enter_and_pass, enters_together, forward_stage
from kip_flax.kernels.cpu.vectors import row_at


@loop
def backward_plane(
    program: Any, plane: Plane, sides: Sides, work: Work, gradients: Gradients, tangent: bool
) -> None:
    """Takes the cotangents of one plane to the level's input and to the fixed side."""
    level = program.levels[plane.level]
    rings, g_rings = work.rings, work.g_rings
    for array in (rings.k, rings.t, g_rings.k, g_rings.t):
        clear_right(rings, array, plane.width)
    coarse_columns(program, plane, rings.columns)
    last = level.first_stage + level.stages - 1
    at_once = tangent and pools_at_once(program, level, tangent) and program.stages[last].tangent
    for time in range(plane.height + 2 * level.lag):
        h = advance(program, plane, time, sides, work, tangent)
        if 0 <= h < plane.height and at_once:
            through_last_stage_from_pool(
                program, program.stages[last], plane, h, sides, work, gradients
            )
        elif 0 <= h < plane.height:
            fill_end_rows(program, plane, h, work, tangent)
            if level.stages:
                through_last_stage(
                    program, program.stages[last], plane, h, sides, work, gradients, tangent
                )
        for back in range(level.stages):
            stage = program.stages[last - back]
            h -= stage.size // 2
            if 0 <= h < plane.height:
                if back + 1 < level.stages:
                    before = program.stages[last - back - 1]
                    stage_back(program, before, stage, plane, h, sides, work, gradients, tangent)
                else:
                    to_level_input(program, stage, plane, h, sides, work, gradients, tangent)
        if 0 <= h < plane.height and not level.stages:
            end_rows_to_level_input(program, plane, h, sides, work, gradients, tangent)


@inlined
def advance(program: Any, plane: Plane, time: int, sides: Sides, work: Work, tangent: bool) -> int:
    """Takes one more row through all stages but the last; returns the row of the last one."""
    level, rings = program.levels[plane.level], work.rings
    together = enters_together(program, plane.level, tangent)
    if time < plane.height and (time == 0 or not together):
        at = ring_row(rings, 2, ring_depth(program, level, 0), time, plane.height)
        k, t = row_at(rings.k, at), row_at(rings.t, at)
        enter(program, plane, time, sides, work.planes[0], work.planes[1], k, t, tangent)
    h = time
    for number in range(level.stages):
        stage = program.stages[level.first_stage + number]
        h -= stage.size // 2
        if 0 <= h < plane.height and number + 1 < level.stages:
            depth = ring_depth(program, level, number + 1)
            at = ring_row(rings, stage.first_row + stage.size, depth, h, plane.height)
            out = Rows(row_at(rings.k, at), row_at(rings.t, at))
            kept = kept_rows(stage, work, h)
            if together and number == 0 and time < plane.height:
                enter_and_pass(program, stage, plane, h, sides, rings, out, kept)
            else:
                forward_stage(program, stage, plane, h, sides, rings, out, kept, tangent)
    return h
