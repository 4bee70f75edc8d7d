"""One level: all offsets between two pools, scanned one plane at a time, forward and backward.

The forward pass keeps only the pooled planes. The backward pass recomputes each plane from the
level's input.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kip_flax.kernels.head import KAndT
from kip_flax.kernels.plan import KernelLevel, KernelPlan
from kip_flax.kernels.xla import planes, pools
from kip_flax.kernels.xla.layout import LevelSide, LevelSides, PerRelu


def level_forward(
    plan: KernelPlan, i: int, entry: KAndT | None, sides: LevelSides, lanes: int
) -> KAndT:
    """K and T after level `i`.

    Args:
        entry: K and T planes (offsets, rows, columns * lanes) with the level's margin; None for the
            first level, which starts from the images.

    Returns:
        The planes that enter the next level, or after the last one the means (lanes,).
    """
    level = plan.levels[i]
    dtype = jax.tree.leaves(sides.fixed)[0].dtype if entry is None else entry[0].dtype

    def one_plane(sums: KAndT, x: tuple) -> tuple[KAndT, None]:
        offset, slots, entering = x
        k, t = plane(level, lanes, offset, entering, sides)
        collect = partial(pools.collect, plan, i, lanes, slots)
        return (collect(sums[0], k), collect(sums[1], t)), None

    empty = jnp.zeros(pools.sums_shape(plan, i, lanes), dtype)
    scanned = (level.offsets(), pools.slots(plan, i), entry)
    (k, t), _ = lax.scan(one_plane, (empty, empty), scanned)
    return pools.finish(plan, i, k), pools.finish(plan, i, t)


def level_backward(
    plan: KernelPlan,
    i: int,
    entry: KAndT | None,
    sides: LevelSides,
    lanes: int,
    cotangents: KAndT,
) -> tuple[KAndT | None, LevelSide]:
    """Cotangents of `entry` and of the fixed side, given those of `level_forward`'s result."""
    level, fixed = plan.levels[i], sides.fixed
    upstream = tuple(pools.begin(plan, i, g) for g in cotangents)

    def one_plane(total: Any, x: tuple) -> tuple[Any, KAndT | None]:
        offset, slots, entering = x

        def through(entering: KAndT | None, image: jax.Array | None, deviations: PerRelu) -> KAndT:
            side = LevelSide(image, deviations)
            return plane(level, lanes, offset, entering, LevelSides(side, sides.moving))

        _, vjp = jax.vjp(through, entering, fixed.image, fixed.deviations)
        gk, gt = (pools.distribute(plan, i, lanes, slots, g) for g in upstream)
        entering_grad, *grads = vjp((gk, gt))
        return jax.tree.map(jnp.add, total, grads), entering_grad

    zeros = jax.tree.map(jnp.zeros_like, [fixed.image, fixed.deviations])
    scanned = (level.offsets(), pools.slots(plan, i), entry)
    (image, deviations), entry_grads = lax.scan(one_plane, zeros, scanned)
    return entry_grads, LevelSide(image, deviations)


def plane(
    level: KernelLevel, lanes: int, offset: jax.Array, entering: KAndT | None, sides: LevelSides
) -> KAndT:
    """K and T (height, width * lanes) at one offset (2,), after the level's layers."""
    fixed, moving = sides
    always_true = offset[0] < level.height
    margin = level.margin
    corner = (level.band[0] + offset[0], (level.band[1] + offset[1]) * lanes)
    t: jax.Array | None
    if entering is None:
        assert fixed.image is not None
        assert moving.image is not None
        shape = (*fixed.image.shape[:2], (level.width + 2 * margin) * lanes)
        images = planes.Fixed(fixed.image), planes.Moving(moving.image, corner)
        k, t = planes.mean_product(lanes, shape, always_true, *images), None
    else:
        rows, columns = _inside(level, offset, margin, lanes, entering[0].dtype)
        k, t = entering[0] * (rows * columns), entering[1] * (rows * columns)
    relus = 0
    for op, rectified in level.stages():
        margin -= op.size // 2
        rows, columns = _inside(level, offset, margin, lanes, k.dtype)
        if not rectified:
            k, t = planes.conv(op, lanes, k, t, rows * columns)
            continue
        s1 = planes.Fixed(fixed.deviations[relus])
        s2 = planes.Moving(moving.deviations[relus], corner)
        pixels = planes.Pixels(s1, s2, rows, columns)
        k, t = planes.conv_relu(op, lanes, always_true, k, t, pixels)
        relus += 1
    return k, jnp.zeros_like(k) if t is None else t


def _inside(
    level: KernelLevel, offset: jax.Array, margin: int, lanes: int, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    """Masks (rows, 1) and (1, columns * lanes): 1 where both pixels are in their images."""

    def mask(size: int, shift: jax.Array) -> jax.Array:
        here = jnp.arange(-margin, size + margin, dtype=jnp.int32)
        there = here + shift
        return ((here >= 0) & (here < size) & (there >= 0) & (there < size)).astype(dtype)

    columns = mask(level.width, offset[1])[:, None]
    columns = jnp.broadcast_to(columns, (len(columns), lanes)).reshape(1, -1)
    return mask(level.height, offset[0])[:, None], columns
