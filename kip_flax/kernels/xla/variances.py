"""Variances of the pre-activations: the kernel of each image with itself, where a ReLU needs it.

A level's own ReLUs need offset 0 only, where each of them halves K. The other offsets are needed
for the planes that the pool passes on. The band is that of `plan.variance_plan`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from kip_flax.kernels.head import KAndT, head_variances
from kip_flax.kernels.plan import KernelLevel, KernelPlan, LinearOp, variance_plan
from kip_flax.kernels.xla.layout import LevelSides, PerRelu, Variances, level_side
from kip_flax.kernels.xla.levels import plane
from kip_flax.kernels.xla.planes import box


def variances(plan: KernelPlan, images: jax.Array) -> Variances:
    """Pre-activation variances of images (n, H, W, C) at every ReLU.

    Args:
        plan: plan of the kernel; `variance_plan` derives the one needed here from it.

    Returns:
        For each level, one map (n, height, width) per ReLU; then one (n,) per ReLU of the head.
    """
    every_level = len(plan.levels)
    head, plan = plan.head, variance_plan(plan)
    lanes = len(images)
    found: list[PerRelu] = []
    own = jnp.mean(images * images, axis=-1)
    entry: jax.Array | None = None
    last = len(plan.levels) - 1
    for i, level in enumerate(plan.levels):
        if entry is not None:
            own = _own(entry, level, lanes)
        own, maps = _through(level, own)
        found.append(maps)
        if i < last or plan.global_pool:
            left = images if i == 0 else None
            sides = LevelSides(
                *(level_side(level, left, maps, lanes, moving) for moving in (False, True))
            )
            out = _all_planes(level, entry, sides, lanes)
            if i < last:
                entry = _pooled(level, plan.levels[i + 1], out, lanes)
    if plan.global_pool:
        mean = out.reshape(-1, lanes).sum(axis=0) / (level.height * level.width) ** 2
    else:
        mean = jnp.mean(own, axis=(1, 2))
    found += [()] * (every_level - len(found))  # No ReLU in these levels.
    return tuple(found), head_variances(head, mean)


def _through(level: KernelLevel, own: jax.Array) -> tuple[jax.Array, PerRelu]:
    """Offset 0 (n, height, width) after the level's layers, and the variances before each ReLU."""
    maps = []
    for op in level.ops:
        if isinstance(op, LinearOp):
            edge = op.size // 2
            padded = jnp.pad(own, ((0, 0), (edge, edge), (edge, edge)))
            own = jax.vmap(lambda p, op=op: box(p, op.size, 1))(padded)
            own = own * (op.weight / op.size**2) + op.bias
        else:
            maps.append(own)
            own = own / 2
    return own, tuple(maps)


def _own(entry: jax.Array, level: KernelLevel, lanes: int) -> jax.Array:
    """Offset 0 of the planes that enter a level, as maps (n, height, width)."""
    centre = entry[level.offsets().tolist().index([0, 0])]
    maps = centre.reshape(level.height + 2 * level.margin, level.width + 2 * level.margin, lanes)
    edge = level.margin
    maps = maps[edge : edge + level.height, edge : edge + level.width]
    return jnp.moveaxis(maps, -1, 0)


def _all_planes(
    level: KernelLevel, entry: jax.Array | None, sides: LevelSides, lanes: int
) -> jax.Array:
    """K planes (offsets, height, width * lanes) of the images with themselves."""

    @jax.checkpoint
    def one_plane(x: tuple) -> jax.Array:
        offset, k = x
        entering: KAndT | None = None if k is None else (k, jnp.zeros_like(k))
        return plane(level, lanes, offset, entering, sides)[0]

    return lax.map(one_plane, (level.offsets(), entry))


def _pooled(level: KernelLevel, after: KernelLevel, out: jax.Array, lanes: int) -> jax.Array:
    """The planes that enter the next level, by average pooling of all planes at once.

    At the fine offset step*d + b - a, rows step*i + a meet rows step*(i + d) + b.
    """
    step, window = level.step, range(level.pool)
    if (at := level.places_in_band()) is not None:
        every = (2 * level.band[0] + 1) * (2 * level.band[1] + 1)
        out = jnp.zeros((every, *out.shape[1:]), out.dtype).at[at].set(out)
    grid = out.reshape(2 * level.band[0] + 1, 2 * level.band[1] + 1, level.height, -1, lanes)
    counts = [2 * b + 1 for b in after.band]

    def met(axis: int, a: int, b: int) -> tuple[slice, slice]:
        """Slices along one axis: the offsets from pixel a of a window to pixel b, and pixels a."""
        first = level.band[axis] - step * after.band[axis] + b - a
        pixel, size = level.start[axis] + a, (after.height, after.width)[axis]
        return (
            slice(first, first + step * (counts[axis] - 1) + 1, step),
            slice(pixel, pixel + step * (size - 1) + 1, step),
        )

    total = sum(
        grid[met(0, a, b)[0]][:, met(1, c, d)[0]][:, :, met(0, a, b)[1], met(1, c, d)[1]]
        for a in window
        for b in window
        for c in window
        for d in window
    )
    edge = ((after.margin, after.margin), (after.margin, after.margin))
    padded = jnp.pad(total / level.pool**4, ((0, 0), (0, 0), *edge, (0, 0)))
    every_plane = padded.reshape(counts[0] * counts[1], after.height + 2 * after.margin, -1)
    return every_plane if (at := after.places_in_band()) is None else every_plane[at]
