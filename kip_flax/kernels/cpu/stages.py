"""The forward pass of one row through one stage of a level, from its ring to the next stage."""

from typing import Any

from kip_flax.kernels.cpu import rows
from kip_flax.kernels.cpu.compiled import inlined
from kip_flax.kernels.cpu.outlets import Rows
from kip_flax.kernels.cpu.pooling import cell_row, coarse_outlet
from kip_flax.kernels.cpu.rings import Plane, Rings, around, pixel, summed
from kip_flax.kernels.cpu.rows import Coefficients, Deviations
from kip_flax.kernels.cpu.sides import Sides
from kip_flax.kernels.cpu.vectors import row_at
from kip_flax.kernels.cpu.windows import Colour, Grey, mean_product


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
    """Writes row `h` of a level's input: the covariance of the images, or pooled planes."""
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
def enters_together(program: Any, index: int, tangent: bool) -> bool:
    """Whether level `index` begins with a stage that computes its own input: `enter_and_pass`.

    Only the network's first stage can do so, if it is not the last of its level.
    """
    if index != 0 or not tangent or program.channels not in (1, 3):
        return False
    if program.levels[0].stages < 2:
        return False
    first = program.stages[0]
    return bool(first.size == 3 and first.rectified and first.ntk)


@inlined
def enter_and_pass(
    program: Any, stage: Any, plane: Plane, h: int, sides: Sides, rings: Rings, out: Rows, kept: Any
) -> None:
    """Takes row `h` through a network's first stage and makes row `h + 1` of its input."""
    coefficients = coefficients_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    (above, here, below), _ = around(rings, stage, h, plane.height)
    p1, p2 = pixel(program, plane, h + 1)
    image1 = row_at(sides.image1, p1 * program.channels)
    image2 = row_at(sides.image2, p2 * program.channels)
    width = plane.width
    if program.channels == 1:
        grey = Grey(image1, image2, below, width)
        rows.rectified_first((above, here, grey), coefficients, deviations, out, kept, width)
    else:
        colour = Colour(image1, image2, below, width)
        rows.rectified_first((above, here, colour), coefficients, deviations, out, kept, width)


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
    """Takes row `h` through one stage, from its ring to `out`; see `rows` for `kept`."""
    coefficients = coefficients_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    width = plane.width
    if stage.size != 3:
        sum_k = summed(rings, rings.k, stage, h, plane.height, width)
        sum_t = summed(rings, rings.t, stage, h, plane.height if stage.tangent else 0, width)
        if stage.rectified:
            rows.rectified(sum_k, sum_t, coefficients, deviations, out, kept, width, tangent)
        else:
            rows.convolved(sum_k, sum_t, coefficients, out.k, out.t, width, tangent)
        return
    around_k, around_t = around(rings, stage, h, plane.height)
    if not stage.rectified:
        rows.convolved(around_k, around_t, coefficients, out.k, out.t, width, tangent)
    elif not tangent and kept is None:
        rows.rectified_alone(around_k, coefficients, deviations, out, width)
    elif tangent and stage.ntk and not stage.tangent:
        rows.rectified_first(around_k, coefficients, deviations, out, kept, width)
    elif tangent and stage.ntk and not stage.signed:
        rows.rectified_later(around_k, around_t, coefficients, deviations, out, kept, width)
    else:
        rows.rectified(around_k, around_t, coefficients, deviations, out, kept, width, tangent)


@inlined
def pool_stage(
    program: Any, stage: Any, plane: Plane, h: int, sides: Sides, rings: Any, planes: Any,
    tangent: bool,
) -> None:  # fmt: skip
    """Takes row `h` through the last stage of a level that `pools_at_once`."""
    coefficients = coefficients_of(stage)
    deviations = deviations_at(program, stage, plane, h, sides)
    around_k, around_t = around(rings, stage, h, plane.height)
    if not tangent:
        alone = coarse_outlet(program, plane, h, rings.columns, planes[0], None)
        rows.rectified_alone(around_k, coefficients, deviations, alone, plane.width)
        return
    out = coarse_outlet(program, plane, h, rings.columns, planes[0], planes[1])
    if stage.tangent:
        rows.rectified_later(around_k, around_t, coefficients, deviations, out, None, plane.width)
    else:
        rows.rectified_first(around_k, coefficients, deviations, out, None, plane.width)


@inlined
def coefficients_of(stage: Any) -> Coefficients:
    """Coefficients of a stage's convolution, which acts on the sums over its windows."""
    return Coefficients(stage.bias, stage.alpha, stage.beta, stage.factor)


@inlined
def deviations_at(program: Any, stage: Any, plane: Plane, h: int, sides: Sides) -> Deviations:
    """The deviations of row `h` of a plane at a stage."""
    p1, p2 = pixel(program, plane, h)
    return Deviations(
        row_at(sides.s1, stage.map + p1),
        row_at(sides.r1, stage.map + p1),
        row_at(sides.s2, stage.map + p2),
        row_at(sides.r2, stage.map + p2),
    )
