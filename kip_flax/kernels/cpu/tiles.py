"""Tiles of image pairs in compiled code: the tasks of the threads.

Images are flat (n, pixels * channels), deviations (n, maps). A *tile* is one fixed image against
`LANES` moving ones. *Pairs*, used for near-duplicates, have their own image on either side, also
`LANES` at a time.
"""

from typing import Any

from kip_flax.kernels.cpu.compiled import entry, loop, rare
from kip_flax.kernels.cpu.gradient_stages import Gradients, Work
from kip_flax.kernels.cpu.sides import (
    aligned,
    from_lanes,
    lay_out_fixed,
    lay_out_moving,
    lay_out_pairs,
    pair_sides,
    tile_sides,
)
from kip_flax.kernels.cpu.vectors import LANES, fma, load, row_at, splat, store
from kip_flax.kernels.cpu.walk import backward, forward, make_kept, make_rings, room_for_planes


@entry
def tiles_forward(
    program: Any,
    x1: Any,
    s1: Any,
    x2: Any,
    s2: Any,
    rows: tuple[int, int],
    groups: tuple[int, int],
    triangle: bool,
    tangent: bool,
    out: Any,
) -> None:
    """Writes K and T (2, n1, n2) at the planes' end, for some rows and groups of `LANES` columns.

    With `triangle`, groups that lie wholly below the diagonal are left out.
    """
    sides, planes = tile_sides(program, x1), room_for_planes(program, x1)
    ends, rings = aligned(x1, 2), make_rings(program, x1)
    for group in range(groups[0], groups[1]):
        first = group * LANES
        count = min(LANES, len(x2) - first)
        lay_out_moving(x2, s2, first, count, sides)
        for row in range(rows[0], rows[1]):
            if triangle and first + count <= row:
                continue
            lay_out_fixed(program, x1, s1, row, sides)
            forward(program, sides, planes, ends, rings, tangent, len(program.levels))
            for lane in range(count):
                out[0, row, first + lane] = ends[0, lane]
                out[1, row, first + lane] = ends[1, lane]


@entry
def tiles_backward(
    program: Any,
    x1: Any,
    s1: Any,
    x2: Any,
    s2: Any,
    g: Any,
    rows: tuple[int, int],
    groups: tuple[int, int],
    tangent: bool,
    grad_x: Any,
    grad_s: Any,
) -> None:
    """Adds the gradients of some rows, given the cotangents g (2, n1, n2) of their K and T.

    grad_x and grad_s (rows, ...) begin at row `rows[0]`.
    """
    sides, planes = tile_sides(program, x1), room_for_planes(program, x1)
    ends, g_ends = aligned(x1, 2), aligned(x1, 2)
    rings, g_rings = make_rings(program, x1), make_rings(program, x1)
    work = Work(planes, g_ends, rings, g_rings, make_kept(program, x1, rings))
    gradients = Gradients(aligned(x1, x1.shape[1]), aligned(x1, s1.shape[1]))
    for group in range(groups[0], groups[1]):
        first = group * LANES
        count = min(LANES, len(x2) - first)
        lay_out_moving(x2, s2, first, count, sides)
        for row in range(rows[0], rows[1]):
            if not _cotangents(program, g, row, first, count, g_ends):
                continue  # All zero.
            lay_out_fixed(program, x1, s1, row, sides)
            forward(program, sides, planes, ends, rings, tangent, len(program.levels) - 1)
            gradients.image[:] = 0
            gradients.s[:] = 0
            backward(program, sides, work, gradients, tangent)
            _add_lanes(program, gradients, grad_x[row - rows[0]], grad_s[row - rows[0]])


@entry
def tiles_jacobian(
    program: Any,
    x1: Any,
    s1: Any,
    x2: Any,
    s2: Any,
    g: Any,
    rows: tuple[int, int],
    groups: tuple[int, int],
    tangent: bool,
    out: Any,
    starts: Any,
    numbers: Any,
    through: Any,
    jacobian: Any,
) -> None:
    """Writes K and T (2, n1, n2) of some rows and groups, and each pair's gradient (n1, n2, ...).

    The gradient is that of g[0] K + g[1] T. Deviation m of image `row` depends on the values
    `numbers[starts[m]:starts[m + 1]]` of the image, with the derivatives in `through[row]`.
    """
    sides, planes = tile_sides(program, x1), room_for_planes(program, x1)
    ends, g_ends = aligned(x1, 2), aligned(x1, 2)
    rings, g_rings = make_rings(program, x1), make_rings(program, x1)
    work = Work(planes, g_ends, rings, g_rings, make_kept(program, x1, rings))
    gradients = Gradients(aligned(x1, x1.shape[1]), aligned(x1, s1.shape[1]))
    for group in range(groups[0], groups[1]):
        first = group * LANES
        count = min(LANES, len(x2) - first)
        lay_out_moving(x2, s2, first, count, sides)
        for row in range(rows[0], rows[1]):
            lay_out_fixed(program, x1, s1, row, sides)
            forward(program, sides, planes, ends, rings, tangent, len(program.levels))
            for lane in range(LANES):
                g_ends[0, lane], g_ends[1, lane] = g[0] * program.share, g[1] * program.share
            gradients.image[:] = 0
            gradients.s[:] = 0
            backward(program, sides, work, gradients, tangent)
            for lane in range(count):
                out[0, row, first + lane] = ends[0, lane]
                out[1, row, first + lane] = ends[1, lane]
            gradients.image[:] *= program.image_factor
            _add_through_deviations(starts, numbers, through[row], gradients)
            from_lanes(gradients.image, first, count, jacobian[row])


@entry
def pairs_forward(
    program: Any, x1: Any, s1: Any, x2: Any, s2: Any, tangent: bool, out: Any
) -> None:
    """Writes K and T (2, m) of m pairs."""
    sides, planes = pair_sides(program, x1), room_for_planes(program, x1)
    ends, rings = aligned(x1, 2), make_rings(program, x1)
    for first in range(0, len(x1), LANES):
        count = min(LANES, len(x1) - first)
        lay_out_pairs(program, x1, s1, x2, s2, first, count, sides)
        forward(program, sides, planes, ends, rings, tangent, len(program.levels))
        for lane in range(count):
            out[0, first + lane], out[1, first + lane] = ends[0, lane], ends[1, lane]


@entry
def pairs_backward(
    program: Any,
    x1: Any,
    s1: Any,
    x2: Any,
    s2: Any,
    g: Any,
    tangent: bool,
    grad_x: Any,
    grad_s: Any,
) -> None:
    """Writes the gradients (m, ...) of m pairs in their first images, given cotangents g (2, m)."""
    sides, planes = pair_sides(program, x1), room_for_planes(program, x1)
    ends, g_ends = aligned(x1, 2), aligned(x1, 2)
    rings, g_rings = make_rings(program, x1), make_rings(program, x1)
    work = Work(planes, g_ends, rings, g_rings, make_kept(program, x1, rings))
    gradients = Gradients(aligned(x1, x1.shape[1]), aligned(x1, s1.shape[1]))
    for first in range(0, len(x1), LANES):
        count = min(LANES, len(x1) - first)
        lay_out_pairs(program, x1, s1, x2, s2, first, count, sides)
        g_ends[:] = 0
        for lane in range(count):
            g_ends[0, lane] = g[0, first + lane] * program.share
            g_ends[1, lane] = g[1, first + lane] * program.share
        forward(program, sides, planes, ends, rings, tangent, len(program.levels) - 1)
        gradients.image[:] = 0
        gradients.s[:] = 0
        backward(program, sides, work, gradients, tangent)
        for lane in range(count):
            for i in range(x1.shape[1]):
                grad_x[first + lane, i] = gradients.image[i, lane] * program.image_factor
            for i in range(s1.shape[1]):
                grad_s[first + lane, i] = gradients.s[i, lane] * program.deviation_factors[i]


@loop
def _add_through_deviations(starts: Any, numbers: Any, through: Any, gradients: Gradients) -> None:
    """Adds the gradients that go through the deviations to the image's gradients."""
    image = row_at(gradients.image, 0)
    s = row_at(gradients.s, 0)
    for m in range(len(starts) - 1):
        here = load(s, m)
        for e in range(starts[m], starts[m + 1]):
            i = numbers[e]
            store(image, i, fma(here, splat(image, through[e]), load(image, i)))


@rare
def _cotangents(program: Any, g: Any, row: int, first: int, count: int, g_ends: Any) -> bool:
    """Writes a tile's cotangents, times `program.share`, to `g_ends`; False if all are zero."""
    g_ends[:] = 0
    some = False
    for lane in range(count):
        for which in range(2):
            value = g[which, row, first + lane]
            some = some or value != 0
            g_ends[which, lane] = value * program.share
    return some


@rare
def _add_lanes(program: Any, gradients: Gradients, grad_x: Any, grad_s: Any) -> None:
    """Adds a tile's gradients, summed over its lanes, to those of an image."""
    for i in range(len(grad_x)):
        grad_x[i] += gradients.image[i].sum() * program.image_factor
    for i in range(len(grad_s)):
        grad_s[i] += gradients.s[i].sum() * program.deviation_factors[i]
