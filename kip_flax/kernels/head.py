"""The head of a network: dense layers and ReLUs on vectors, one K and one T per image pair.

A fully connected network consists of a head only.
"""

import jax
import jax.numpy as jnp

from kip_flax.kernels import near_duplicates, relu
from kip_flax.kernels.plan import KernelPlan, LinearOp, Op
from kip_flax.kernels.relu import deviation
from kip_flax.runtime.precision import product

KAndT = tuple[jax.Array, jax.Array]  # Covariance and tangent kernel.
PerRelu = tuple[jax.Array, ...]  # One array per ReLU, in order.


def head(ops: tuple[Op, ...], k: jax.Array, t: jax.Array, s1: PerRelu, s2: PerRelu) -> KAndT:
    """K and T after the head's dense layers and ReLUs.

    `s1` and `s2` are the standard deviations before each ReLU; s1 * s2 broadcasts to K's shape.
    """
    deviations = iter(zip(s1, s2, strict=True))
    for op in ops:
        if isinstance(op, LinearOp):
            k, t = dense_layer(op, k, t)
        else:
            a, b = next(deviations)
            k, t = relu.relu(k, t, a * b)
    return k, t


def head_variances(ops: tuple[Op, ...], v: jax.Array) -> PerRelu:
    """Variances before each ReLU of the head, given the variances `v` that enter it."""
    found = []
    for op in ops:
        if isinstance(op, LinearOp):
            v = op.weight * v + op.bias
        else:
            found.append(v)
            v = v / 2
    return tuple(found)


def dense_layer(op: LinearOp, k: jax.Array, t: jax.Array) -> KAndT:
    """Covariance and tangent kernel after a dense layer."""
    b = op.weight * k + op.bias
    return b, op.alpha * b + op.beta + op.weight * t


def dense_kernel(plan: KernelPlan, get: str, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Kernel (n1, n2) of a network without convolutions: one matrix product and pointwise maps."""

    def ends(k: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        s1, s2 = (
            tuple(deviation(v) for v in head_variances(plan.head, jnp.mean(x * x, axis=-1)))
            for x in (a, b)
        )
        return head(plan.head, k, jnp.zeros_like(k), s1, s2)[get == "ntk"]

    def paired(a: jax.Array, b: jax.Array) -> jax.Array:
        a, b = (x.reshape(len(x), -1) for x in (a, b))
        return ends(jnp.mean(a * b, axis=-1), a, b)

    flat1, flat2 = (x.reshape(len(x), -1) for x in (x1, x2))
    k = product(flat1, flat2.T) / flat1.shape[1]
    k = ends(k, flat1[:, None], flat2[None])
    return near_duplicates.corrected(near_duplicates.make_paired(plan, get, paired), k, x1, x2)
