"""The forward pass of one plane, row by row, through the layers of a level.

Rows flow through rings: a stage (a convolution and the ReLU after it) computes its row h as soon as
the stage before it has computed row h + reach, and keeps as many rows as its window is high. So a
plane never leaves the cache of a core. `gradient_planes` is the backward pass.
"""

from typing import Any

from kip_flax.kernels.cpu import rows
from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.outlets import Rows
from kip_flax.kernels.cpu.pooling import coarse_columns, collect, pools_at_once
from kip_flax.kernels.cpu.rings import Plane, Rings, clear_right, ring_depth, ring_row
from kip_flax.kernels.cpu.sides import Sides
from kip_flax.kernels.cpu.stages import (
    enter,
    enter_and_pass,
    enters_together,
    forward_stage,
    pool_stage,
)
from kip_flax.kernels.cpu.vectors import row_at


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
    """Takes one plane through its level and adds it to the next level's planes, or to `ends`."""
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
def finish(
    program: Any, plane: Plane, h: int, columns: Any, row: Any, planes: Any, ends: Any, which: int
) -> None:
    """Adds a row that left its level's last stage to the next level's planes, or to `ends`."""
    if program.levels[plane.level].pooled:
        collect(program, plane, h, columns, row, planes)
    else:
        rows.add_total(row, row_at(ends, which), plane.width)
