"""Adds a finished plane to the pooled sums of the next level, or to the mean at the end.

The sums of a level are the planes of K or T that enter the next level: (row offsets, column
offsets, rows, columns * lanes), with the next level's margin around each plane. The band has one
spare offset on each side; the first takes the parts that the next level does not read.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kip_flax.kernels.plan import KernelPlan
from kip_flax.kernels.xla import planes


def sums_shape(plan: KernelPlan, i: int, lanes: int) -> tuple[int, ...]:
    """Shape of the sums of level `i`; (lanes,) for the last."""
    if not plan.levels[i].pool:
        return (lanes,)
    after = plan.levels[i + 1]
    rows, columns = after.height + 2 * after.margin, after.width + 2 * after.margin
    return (2 * after.band[0] + 3, 2 * after.band[1] + 3, rows, columns * lanes)


def slots(plan: KernelPlan, i: int) -> np.ndarray:
    """The places in the sums that each plane adds to, by axis and row in the window.

    Fine row h = start + step*j + a at offset o meets row h + o, which is step*d + (a + o) mod step
    rows after the start of window j: d is its coarse offset. Rows between windows and offsets
    outside the band go to the spare offset 0.

    Returns:
        (offsets, 2, window) int32.
    """
    level = plan.levels[i]
    fine = level.offsets()
    if not level.pool:
        return np.zeros((len(fine), 2, 0), np.int32)
    coarse, other = np.divmod(fine[:, :, None] + np.arange(level.pool), level.step)
    band = np.array(plan.levels[i + 1].band)[:, None]
    inside = (other < level.pool) & (np.abs(coarse) <= band)
    return np.where(inside, coarse + band + 1, 0).astype(np.int32)


def collect(
    plan: KernelPlan, i: int, lanes: int, slots: jax.Array, sums: jax.Array, plane: jax.Array
) -> jax.Array:
    """`sums` with one plane (height, width * lanes) added."""
    level = plan.levels[i]
    if not level.pool:
        return sums + plane.reshape(-1, lanes).sum(axis=0) * _share(plan, i)
    after = plan.levels[i + 1]
    cells = planes.windows(plane, level, lanes) / level.pool**4
    for a, b in _window(level.pool):
        part = cells[:, a, :, b].reshape(1, 1, after.height, -1)
        start = _start(plan, i, lanes, slots, a, b)
        old = lax.dynamic_slice(sums, start, part.shape, allow_negative_indices=False)
        sums = lax.dynamic_update_slice(sums, old + part, start, allow_negative_indices=False)
    return sums


def finish(plan: KernelPlan, i: int, sums: jax.Array) -> jax.Array:
    """The planes (offsets, rows, columns * lanes) entering the next level; a mean is unchanged."""
    if not plan.levels[i].pool:
        return sums
    every = sums[1:-1, 1:-1].reshape(-1, *sums.shape[2:])
    places = plan.levels[i + 1].places_in_band()
    return every if places is None else every[places]


def begin(plan: KernelPlan, i: int, cotangent: jax.Array) -> jax.Array:
    """The transpose of `finish`, with zeros at the spare offsets."""
    if not plan.levels[i].pool:
        return cotangent
    reach = plan.levels[i + 1].band
    places = plan.levels[i + 1].places_in_band()
    if places is not None:
        every = (2 * reach[0] + 1) * (2 * reach[1] + 1)
        zeros = jnp.zeros((every, *cotangent.shape[1:]), cotangent.dtype)
        cotangent = zeros.at[places].set(cotangent)
    sums = cotangent.reshape(2 * reach[0] + 1, 2 * reach[1] + 1, *cotangent.shape[1:])
    return jnp.pad(sums, ((1, 1), (1, 1), (0, 0), (0, 0)))


def distribute(
    plan: KernelPlan, i: int, lanes: int, slots: jax.Array, upstream: jax.Array
) -> jax.Array:
    """The transpose of `collect`: the cotangent (height, width * lanes) of one plane."""
    level = plan.levels[i]
    if not level.pool:
        line = jnp.tile(upstream * _share(plan, i), level.width)
        return jnp.broadcast_to(line, (level.height, len(line)))
    after = plan.levels[i + 1]
    rows, size, columns = after.height, level.pool, after.width
    cells = jnp.zeros((rows, size, columns, size, lanes), upstream.dtype)
    for a, b in _window(size):
        start = _start(plan, i, lanes, slots, a, b)
        shape = (1, 1, rows, columns * lanes)
        part = lax.dynamic_slice(upstream, start, shape, allow_negative_indices=False) / size**4
        part = part.reshape(rows, 1, columns, 1, lanes)
        cells = lax.dynamic_update_slice(cells, part, (0, a, 0, b, 0))
    return planes.from_windows(cells, level)


def _share(plan: KernelPlan, i: int) -> float:
    """Weight of a plane entry in the final mean, over all pixel pairs or those at offset 0."""
    pixels = plan.levels[i].height * plan.levels[i].width
    return 1 / pixels**2 if plan.global_pool else 1 / pixels


def _window(size: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(size) for b in range(size)]


def _start(
    plan: KernelPlan, i: int, lanes: int, slots: jax.Array, a: int, b: int
) -> tuple[jax.Array | np.int32, ...]:
    margin = plan.levels[i + 1].margin
    return slots[0, a], slots[1, b], np.int32(margin), np.int32(margin * lanes)
