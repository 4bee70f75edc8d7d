"""The exact kernel of one tile of image pairs in plain JAX, for any device: walk and head."""

from functools import partial

import jax
import jax.numpy as jnp

from kip_flax.kernels import relu
from kip_flax.kernels.band import Affine, Op, Plan
from kip_flax.kernels.layout import Maps, Side, inverse
from kip_flax.kernels.levels import Pair, level_backward, level_forward


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def tile(plan: Plan, get: str, lanes: int, fixed: Side, moving: Side) -> jax.Array:
    """Kernel (lanes,), 'ntk' or 'nngp', of a tile's pairs; only the fixed side has a gradient."""
    return forward(plan, fixed, moving, lanes)[get == "ntk"]


def _tile_fwd(plan: Plan, get: str, lanes: int, fixed: Side, moving: Side) -> tuple:
    return tile(plan, get, lanes, fixed, moving), (fixed, moving)


def _tile_bwd(plan: Plan, get: str, lanes: int, sides: tuple[Side, Side], g: jax.Array) -> tuple:
    fixed, moving = sides
    zero = jnp.zeros_like(g)
    grads = backward(plan, fixed, moving, lanes, (zero, g) if get == "ntk" else (g, zero))
    return grads, jax.tree.map(jnp.zeros_like, moving)


tile.defvjp(_tile_fwd, _tile_bwd)


def forward(plan: Plan, fixed: Side, moving: Side, lanes: int) -> Pair:
    """NNGP and NTK (lanes,) of every pair of a tile."""
    k, t = _walk(plan, fixed, moving, lanes)[-1]
    return head(plan.head, k, t, fixed.head, moving.head)


def backward(plan: Plan, fixed: Side, moving: Side, lanes: int, cotangents: Pair) -> Side:
    """Gradient of the fixed side, given the cotangents (lanes,) of NNGP and NTK."""
    *entries, (k, t) = _walk(plan, fixed, moving, lanes)
    _, vjp = jax.vjp(lambda k, t, s: head(plan.head, k, t, s, moving.head), k, t, fixed.head)
    gk, gt, head_grads = vjp(cotangents)
    upstream: Pair | None = (gk, gt)
    grads = []
    for i in reversed(range(len(plan.levels))):
        assert upstream is not None
        upstream, grad = level_backward(
            plan, i, entries[i], fixed.levels[i], moving.levels[i], lanes, upstream
        )
        grads.append(grad)
    return Side(tuple(reversed(grads)), head_grads)


def head(ops: tuple[Op, ...], k: jax.Array, t: jax.Array, s1: Maps, s2: Maps) -> Pair:
    """Dense layers and ReLUs on vectors: K and T of any shape to which s1 * s2 broadcasts."""
    deviations = iter(zip(s1, s2, strict=True))
    for op in ops:
        if isinstance(op, Affine):
            k, t = affine(op, k, t)
        else:
            a, b = next(deviations)
            k, t = relu.relu(k, t, a * b, jax.lax.stop_gradient(inverse(a) * inverse(b)))
    return k, t


def head_variances(ops: tuple[Op, ...], v: jax.Array) -> Maps:
    """Variances before each ReLU of the head, from those that enter it."""
    found = []
    for op in ops:
        if isinstance(op, Affine):
            v = op.weight * v + op.bias
        else:
            found.append(v)
            v = v / 2
    return tuple(found)


def affine(op: Affine, k: jax.Array, t: jax.Array) -> Pair:
    """A dense layer on covariance and tangent kernel."""
    b = op.weight * k + op.bias
    return b, op.alpha * b + op.beta + op.weight * t


def _walk(plan: Plan, fixed: Side, moving: Side, lanes: int) -> list:
    """What enters each level, and last what leaves the planes: K and T (lanes,)."""
    entries: list[Pair | None] = [None]
    for i in range(len(plan.levels)):
        entries.append(
            level_forward(plan, i, entries[-1], fixed.levels[i], moving.levels[i], lanes)
        )
    return entries
