"""Adds a finished row of a plane to the planes of the next level, and the transpose of that.

Fine pixels h of the fixed image and h + o of the moving one lie in windows j and j + d, so they add
to row j of the coarse offset d. `program.coarse` has the window of every pixel.
"""

from typing import Any

from kip_flax.kernels.cpu.compiled import inlined, loop
from kip_flax.kernels.cpu.outlets import Coarse, Half, row_or_none
from kip_flax.kernels.cpu.vectors import load, row_at, shifted, store


@inlined
def cell_row(program: Any, index: int, row: int, dr: int, dc: int) -> int:
    """The index that column 0 of a row of the plane at offset (dr, dc) would have in all cells."""
    level = program.levels[index]
    plane = (dr + level.band_rows) * (2 * level.band_columns + 1) + dc + level.band_columns
    begin = program.starts[level.first_start + plane]
    return begin + (row - max(0, -dr)) * (level.width - abs(dc)) - max(0, -dc)


@inlined
def needed(program: Any, index: int, dr: int, dc: int) -> bool:
    """Whether a level needs the offset (dr, dc); along an axis, 0 is always needed."""
    level = program.levels[index]
    if abs(dr) > level.band_rows or abs(dc) > level.band_columns:
        return False
    plane = (dr + level.band_rows) * (2 * level.band_columns + 1) + dc + level.band_columns
    return bool(program.starts[level.first_start + plane] >= 0)


@inlined
def coarse_row(program: Any, plane: Any, h: int) -> tuple[int, int]:
    """The coarse row and row offset that row `h` of a plane adds to; row -1 for none."""
    level = program.levels[plane.level]
    row = level.first_coarse + plane.top + h
    j, other = program.coarse[row], program.coarse[row + plane.oh]
    if j < 0 or other < 0 or not needed(program, plane.level + 1, other - j, 0):
        return -1, 0
    return j, other - j


@loop
def coarse_columns(program: Any, plane: Any, out: Any) -> None:
    """Finds the coarse columns that each column a of the window adds to.

    Row a of `out` has the first coarse column and the one past the last, their offset, and the
    place in the plane of coarse column 0.
    """
    level = program.levels[plane.level]
    if not level.pooled:
        return
    after = program.levels[plane.level + 1]
    for a in range(level.window):
        d, b = divmod(a + plane.ow, level.step)
        out[a, 0], out[a, 1] = max(0, -d), min(after.width, after.width - d)
        if b >= level.window or not needed(program, plane.level + 1, 0, d):
            out[a, 1] = 0
        out[a, 2] = d
        out[a, 3] = level.start_column + a - plane.left


@inlined
def pools_at_once(program: Any, level: Any, tangent: bool) -> bool:
    """Whether the last stage of a level adds its rows to the next level's planes itself."""
    if not level.pooled or level.window != 2 or level.step != 2 or level.stages == 0:
        return False
    last = program.stages[level.first_stage + level.stages - 1]
    if last.size != 3 or not last.rectified:
        return False
    return not tangent or bool(last.ntk and not (last.tangent and last.signed))


@inlined
def coarse_outlet(program: Any, plane: Any, h: int, columns: Any, k: Any, t: Any) -> Coarse:
    """The outlet of row `h` of a plane into the next level's planes `k`, `t`, by 2x2 pooling."""
    j, dr = coarse_row(program, plane, h)
    first = coarse_half(program, plane, j, dr, columns[0], k, t)
    second = coarse_half(program, plane, j, dr, columns[1], k, t)
    joined = columns[0, 2] == columns[1, 2] and columns[0, 3] & 1 == 0
    if columns[0, 3] & 1:
        return Coarse(second, first, joined)
    return Coarse(first, second, joined)


@inlined
def coarse_half(program: Any, plane: Any, j: int, dr: int, column: Any, k: Any, t: Any) -> Half:
    """The outlet of one column of the windows: every other column of a plane, from 0 or 1 on."""
    before = column[3] >> 1
    begin = cell_row(program, plane.level + 1, j, dr, column[2]) - before
    low, high = column[0] + before, column[1] + before
    return Half(row_at(k, begin), row_or_none(t, begin), low, high if j >= 0 else low)


@inlined
def collect(program: Any, plane: Any, h: int, columns: Any, source: Any, planes: Any) -> None:
    """Adds finished row `h` of a plane to the next level's planes."""
    j, dr = coarse_row(program, plane, h)
    if j < 0:
        return
    level = program.levels[plane.level]
    step, window = level.step, level.window
    if window == 2 and columns[0, 2] == columns[1, 2]:
        low, high = columns[0, 0], columns[0, 1]
        out = row_at(planes, cell_row(program, plane.level + 1, j, dr, columns[0, 2]) + low)
        add_pairs(shifted(source, columns[0, 3] + 2 * low), out, high - low)
        return
    for a in range(window):
        low, high = columns[a, 0], columns[a, 1]
        if low < high:
            out = row_at(planes, cell_row(program, plane.level + 1, j, dr, columns[a, 2]) + low)
            add_every(shifted(source, columns[a, 3] + step * low), step, out, high - low)


@loop
def add_pairs(source: Any, out: Any, count: int) -> None:
    """Adds the sum of each pair of neighbours in `source` to `out`."""
    for i in range(count):
        store(out, i, load(out, i) + (load(source, 2 * i) + load(source, 2 * i + 1)))


@loop
def add_every(source: Any, step: int, out: Any, count: int) -> None:
    """Adds every `step`-th vector of `source` to `out`."""
    for i in range(count):
        store(out, i, load(out, i) + load(source, i * step))


@inlined
def distribute(program: Any, plane: Any, h: int, columns: Any, planes: Any, out: Any) -> None:
    """The transpose of `collect`; `out` has to be zero before."""
    j, dr = coarse_row(program, plane, h)
    if j < 0:
        return
    level = program.levels[plane.level]
    step = level.step
    for a in range(level.window):
        low, high = columns[a, 0], columns[a, 1]
        if low < high:
            source = row_at(planes, cell_row(program, plane.level + 1, j, dr, columns[a, 2]) + low)
            copy_to_every(source, shifted(out, columns[a, 3] + step * low), step, high - low)


@loop
def copy_to_every(source: Any, out: Any, step: int, count: int) -> None:
    """Writes `source` to every `step`-th vector of `out`."""
    for i in range(count):
        store(out, i * step, load(source, i))
