"""All pairs of two image sets, tile by tile: memory is one tile however many pairs there are.

A tile is one image of the first set against `lanes` of the second. Forward keeps only the kernel;
backward recomputes each tile with one scalar cotangent per pair. A tile gives the gradient of its
fixed side, so the gradient of the second set, where it is asked for, is a second pass with the
sets exchanged.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from kip_flax.kernels.band import Plan
from kip_flax.kernels.layout import Variances, lay_out
from kip_flax.kernels.variances import variances
from kip_flax.kernels.xla import tile
from kip_flax.runtime.batching import split_rows

# Lanes of a tile. On a CPU a tile's planes should stay in the cache of a core; elsewhere lanes fill
# the machine, and the planes of a tile should fit this many bytes.
_CPU_LANES = 32
_TILE_BYTES = 1 << 30


def lanes_for(plan: Plan, images: int) -> int:
    """How many images of the second set a tile takes."""
    if jax.default_backend() == "cpu":
        most = _CPU_LANES
    else:
        most = max(128, _TILE_BYTES // bytes_per_lane(plan) // 128 * 128)
    return min(most, images)


def bytes_per_lane(plan: Plan) -> int:
    """Bytes of the planes that a tile holds for each pair, forward and backward."""
    floats = 0
    for level in plan.levels:
        floats += 12 * (level.height + 2 * level.margin) * (level.width + 2 * level.margin)
        if level is not plan.levels[0]:
            offsets = (2 * level.band[0] + 3) * (2 * level.band[1] + 3)
            floats += (
                6 * offsets * (level.height + 2 * level.margin) * (level.width + 2 * level.margin)
            )
    return 4 * floats


def all_variances(plan: Plan, images: jax.Array) -> Variances:
    """`variances` of any number of images (n, H, W, C), a tile at a time."""
    lanes = lanes_for(plan, len(images))
    tiles = split_rows(images, lanes)
    found = lax.map(jax.checkpoint(partial(variances, plan)), tiles)
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[: len(images)], found)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pair_kernel(
    plan: Plan, get: str, x1: jax.Array, v1: Variances, x2: jax.Array, v2: Variances
) -> jax.Array:
    """Kernel (n1, n2) of images x1 (n1, H, W, C) and x2 (n2, H, W, C) with their variances."""
    if len(x1) > len(x2):
        return pair_kernel(plan, get, x2, v2, x1, v1).T
    lanes = lanes_for(plan, len(x2))

    def one_tile(moving: tuple) -> jax.Array:
        images, maps = moving
        side = lay_out(plan, images, maps, lanes, moving=True)
        return lax.map(lambda fixed: _one_against(plan, get, lanes, fixed, side), (x1, v1))

    k = lax.map(one_tile, split_rows((x2, v2), lanes))
    return jnp.moveaxis(k, 0, 1).reshape(len(x1), -1)[:, : len(x2)]


def fixed_gradient(
    plan: Plan, get: str, x1: jax.Array, v1: Variances, x2: jax.Array, v2: Variances, g: jax.Array
) -> tuple[jax.Array, Variances]:
    """Gradient of sum(g * kernel) with respect to x1 and its variances; g is (n1, n2)."""
    lanes = lanes_for(plan, len(x2))

    def one_tile(total: Any, moving: tuple) -> tuple[Any, None]:
        (images, maps), cotangents = moving
        side = lay_out(plan, images, maps, lanes, moving=True)

        def one_image(x: tuple) -> Any:
            fixed, weights = x
            _, vjp = jax.vjp(lambda f: _one_against(plan, get, lanes, f, side), fixed)
            return vjp(weights)[0]

        return jax.tree.map(jnp.add, total, lax.map(one_image, ((x1, v1), cotangents.T))), None

    zeros = jax.tree.map(jnp.zeros_like, (x1, v1))
    total, _ = lax.scan(one_tile, zeros, split_rows(((x2, v2), g.T), lanes))
    return total


def _one_against(plan: Plan, get: str, lanes: int, fixed: tuple, moving: Any) -> jax.Array:
    """Kernel (lanes,) of one image (H, W, C), with its variances, against a moving side."""
    images, maps = jax.tree.map(lambda a: a[None], fixed)
    return tile(plan, get, lanes, lay_out(plan, images, maps, lanes, moving=False), moving)


def _fwd(plan: Plan, get: str, *sides: Any) -> tuple:
    values = jax.tree.map(lambda a: a.value, sides, is_leaf=_is_primal)
    # Which set wants a gradient travels as structure: () for yes, None for no.
    asked = tuple(
        () if any(a.perturbed for a in jax.tree.leaves(side, is_leaf=_is_primal)) else None
        for side in (sides[:2], sides[2:])
    )
    return pair_kernel(plan, get, *values), (values, asked)


def _bwd(plan: Plan, get: str, residuals: tuple, g: Any) -> tuple:
    (x1, v1, x2, v2), asked = residuals
    if isinstance(g, jax.custom_derivatives.SymbolicZero):
        return None, None, None, None
    first = (None, None) if asked[0] is None else fixed_gradient(plan, get, x1, v1, x2, v2, g)
    second = (None, None) if asked[1] is None else fixed_gradient(plan, get, x2, v2, x1, v1, g.T)
    return *first, *second


def _is_primal(x: Any) -> bool:
    return isinstance(x, jax.custom_derivatives.CustomVJPPrimal)


pair_kernel.defvjp(_fwd, _bwd, symbolic_zeros=True)
