"""All pairs of two image sets, tile by tile, in the memory of one tile.

A tile is one image of the first set against `lanes` of the second. The forward pass keeps only the
kernel; the backward pass recomputes each tile with one scalar cotangent per pair. A tile gives the
gradient of its fixed side. The gradient of the second set, if needed, takes a second pass with the
sets exchanged.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kip_flax.kernels.head import KAndT, head
from kip_flax.kernels.plan import KernelPlan
from kip_flax.kernels.xla.layout import LevelSides, Side, Variances, lay_out
from kip_flax.kernels.xla.levels import level_backward, level_forward
from kip_flax.kernels.xla.planes import is_primal
from kip_flax.kernels.xla.variances import variances
from kip_flax.runtime.batching import split_rows

# On a CPU, a tile's planes should stay in the cache of a core, so it has few lanes. On a TPU they
# stay in the core's own memory: on a v5e 256 lanes of 32x32 or 28x28 pixels do, by its compiler. On
# a GPU the lanes fill the device.
_CPU_LANES = 32
_TILE_BYTES = 1 << 30
_TPU_BYTES = 3 << 26


class Images(NamedTuple):
    """Images (n, H, W, C) with their variances."""

    x: jax.Array
    variances: Variances


def lanes_for(plan: KernelPlan, images: int, memory: int = 1) -> int:
    """Images of the second set per tile, of which each takes `memory` times `bytes_per_lane`."""
    if jax.default_backend() == "cpu":
        return min(_CPU_LANES, images)
    each = bytes_per_lane(plan)
    most = max(128, _TILE_BYTES // (memory * each) // 128 * 128)
    if jax.default_backend() == "tpu":
        most = min(most, max(256, _TPU_BYTES // each // 128 * 128))
    return min(most, images)


def bytes_per_lane(plan: KernelPlan) -> int:
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


def with_variances(plan: KernelPlan, x: jax.Array) -> Images:
    """Images (n, H, W, C) with their variances, which are computed a tile at a time."""
    parts = split_rows(x, lanes_for(plan, len(x)))
    found = lax.map(jax.checkpoint(partial(variances, plan)), parts)
    return Images(x, jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:])[: len(x)], found))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def pair_kernel(plan: KernelPlan, get: str, one: Images, two: Images) -> jax.Array:
    """Kernel (n1, n2), 'ntk' or 'nngp', of two sets of images."""
    if len(one.x) > len(two.x):
        return pair_kernel(plan, get, two, one).T
    lanes = lanes_for(plan, len(two.x))

    def one_tile(moving: Images) -> jax.Array:
        side = lay_out(plan, moving.x, moving.variances, lanes, moving=True)
        return lax.map(lambda fixed: _one_against(plan, get, lanes, fixed, side), one)

    k = lax.map(one_tile, split_rows(two, lanes))
    return jnp.moveaxis(k, 0, 1).reshape(len(one.x), -1)[:, : len(two.x)]


def fixed_gradient(plan: KernelPlan, get: str, one: Images, two: Images, g: jax.Array) -> Images:
    """Gradient of sum(g * kernel) with respect to set `one`; g is (n1, n2)."""
    lanes = lanes_for(plan, len(two.x))

    def one_tile(total: Images, part: tuple[Images, jax.Array]) -> tuple[Images, None]:
        moving, cotangents = part
        side = lay_out(plan, moving.x, moving.variances, lanes, moving=True)

        def one_image(x: tuple[Images, jax.Array]) -> Images:
            fixed, weights = x
            _, vjp = jax.vjp(lambda f: _one_against(plan, get, lanes, f, side), fixed)
            return vjp(weights)[0]

        return jax.tree.map(jnp.add, total, lax.map(one_image, (one, cotangents.T))), None

    zeros = jax.tree.map(jnp.zeros_like, one)
    total, _ = lax.scan(one_tile, zeros, split_rows((two, g.T), lanes))
    return total


def _one_against(plan: KernelPlan, get: str, lanes: int, fixed: Images, moving: Side) -> jax.Array:
    """Kernel (lanes,) of one image (H, W, C), with its variances, against a moving side."""
    images, maps = jax.tree.map(lambda a: a[None], fixed)
    return tile(plan, get, lanes, lay_out(plan, images, maps, lanes, moving=False), moving)


def _fwd(plan: KernelPlan, get: str, *sets: Images) -> tuple:
    values = jax.tree.map(lambda a: a.value, sets, is_leaf=is_primal)
    # The tree structure encodes which sets need a gradient: () for yes, None for no.
    asked = tuple(
        () if any(a.perturbed for a in jax.tree.leaves(images, is_leaf=is_primal)) else None
        for images in sets
    )
    return pair_kernel(plan, get, *values), (values, asked)


def _bwd(plan: KernelPlan, get: str, residuals: tuple, g: Any) -> tuple:
    (one, two), asked = residuals
    if isinstance(g, jax.custom_derivatives.SymbolicZero):
        return None, None
    first = None if asked[0] is None else fixed_gradient(plan, get, one, two, g)
    second = None if asked[1] is None else fixed_gradient(plan, get, two, one, g.T)
    return first, second


pair_kernel.defvjp(_fwd, _bwd, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def tile(plan: KernelPlan, get: str, lanes: int, fixed: Side, moving: Side) -> jax.Array:
    """Kernel (lanes,), 'ntk' or 'nngp', of a tile's pairs; only the fixed side has a gradient."""
    return forward(plan, fixed, moving, lanes)[get == "ntk"]


def _tile_fwd(plan: KernelPlan, get: str, lanes: int, fixed: Side, moving: Side) -> tuple:
    return tile(plan, get, lanes, fixed, moving), (fixed, moving)


def _tile_bwd(
    plan: KernelPlan, get: str, lanes: int, sides: tuple[Side, Side], g: jax.Array
) -> tuple:
    fixed, moving = sides
    zero = jnp.zeros_like(g)
    grads = backward(plan, fixed, moving, lanes, (zero, g) if get == "ntk" else (g, zero))
    return grads, jax.tree.map(jnp.zeros_like, moving)


tile.defvjp(_tile_fwd, _tile_bwd)


def forward(plan: KernelPlan, fixed: Side, moving: Side, lanes: int) -> KAndT:
    """NNGP and NTK (lanes,) of every pair of a tile."""
    k, t = _walk(plan, fixed, moving, lanes)[-1]
    return head(plan.head, k, t, fixed.head, moving.head)


def backward(plan: KernelPlan, fixed: Side, moving: Side, lanes: int, cotangents: KAndT) -> Side:
    """Gradient of the fixed side, given the cotangents (lanes,) of NNGP and NTK."""
    *entries, (k, t) = _walk(plan, fixed, moving, lanes)
    _, vjp = jax.vjp(lambda k, t, s: head(plan.head, k, t, s, moving.head), k, t, fixed.head)
    gk, gt, head_grads = vjp(cotangents)
    upstream: KAndT | None = (gk, gt)
    grads = []
    for i in reversed(range(len(plan.levels))):
        assert upstream is not None
        sides = LevelSides(fixed.levels[i], moving.levels[i])
        upstream, grad = level_backward(plan, i, entries[i], sides, lanes, upstream)
        grads.append(grad)
    return Side(tuple(reversed(grads)), head_grads)


def _walk(plan: KernelPlan, fixed: Side, moving: Side, lanes: int) -> list:
    """The input of each level, followed by the output of the planes, K and T (lanes,)."""
    entries: list[KAndT | None] = [None]
    for i in range(len(plan.levels)):
        sides = LevelSides(fixed.levels[i], moving.levels[i])
        entries.append(level_forward(plan, i, entries[-1], sides, lanes))
    return entries
