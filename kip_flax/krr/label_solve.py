"""Label Solve (Nguyen et al., ICLR 2021, section 3.2): the best labels for given support images.

The labels minimise the KRR loss on all training targets in closed form. Only two sums over the
targets are needed, K_st K_ts (S, S) and K_st y_t (S, C); they are summed tile by tile. Shapes: S
support images, T targets of a tile, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kip_flax import krr
from kip_flax.kernels import Kernel
from kip_flax.runtime.precision import product


class Sums(NamedTuple):
    """The sums that determine the best labels, float64 if JAX has it switched on.

    Attributes:
        gram: (S, S), the sum over targets of K_st K_ts.
        cross: (S, C), the sum over targets of K_st y_t.
    """

    gram: jax.Array
    cross: jax.Array


# The least ridge in float32, in epsilons of the trace: measured on the digits, 100 to 400 images.
_ROUNDING = 0.1

AddTargets = Callable[[Sums, jax.Array, jax.Array, jax.Array, jax.Array], Sums]


def zero_sums(size: int, classes: int) -> Sums:
    """The sums over no targets, for `size` support images."""
    dtype = krr.solve_dtype()
    return Sums(jnp.zeros((size, size), dtype), jnp.zeros((size, classes), dtype))


def sum_targets(k_ts: jax.Array, y_t: jax.Array, weights: jax.Array) -> Sums:
    """The sums over the targets of k_ts (T, S) and y_t (T, C).

    `weights` (T,) is 0 where a target is padding.
    """
    k_ts = k_ts.astype(krr.solve_dtype()) * weights[:, None]
    return Sums(product(k_ts.T, k_ts), product(k_ts.T, y_t.astype(k_ts.dtype)))


def make_add_targets(kernel: Kernel) -> AddTargets:
    """`add_targets(sums, x_s, x_t, y_t, weights) -> sums`, compiled: adds one tile of targets.

    It donates `sums`, and takes support images x_s (S, H, W, C), targets x_t (T, H, W, C), their
    labels y_t (T, classes) and weights (T,), 0 where a target is padding.
    """

    def add_targets(
        sums: Sums, x_s: jax.Array, x_t: jax.Array, y_t: jax.Array, weights: jax.Array
    ) -> Sums:
        tile = sum_targets(kernel(x_t, x_s), y_t, weights)
        return Sums(sums.gram + tile.gram, sums.cross + tile.cross)

    return jax.jit(add_targets, donate_argnums=0)


def solution(sums: Sums, reg: float) -> jax.Array:
    """alpha* (S, C), whose predictions K_ts alpha* are the best that the support can give.

    `alpha* = (K_st K_ts + reg/S I)^-1 K_st y_t`; `reg` is absolute. The ridge is `ridge_of`.
    """
    gram, cross = sums
    return krr.solve_positive_definite(krr.add_ridge(gram, ridge_of(gram, reg)), cross)


def ridge_of(gram: jax.Array, reg: float) -> jax.Array | float:
    """The ridge `reg/S` of K_st K_ts (S, S), in float32 at least what its rounding may hide.

    The condition number of K_st K_ts is the square of that of K_ts. Summed in float32, its least
    eigenvalues come out below zero for some hundred images.
    """
    ridge = reg / len(gram)
    if gram.dtype == jnp.float64:
        return ridge
    return jnp.maximum(ridge, _ROUNDING * jnp.finfo(gram.dtype).eps * jnp.trace(gram))


def solve_labels(k_ss: jax.Array, sums: Sums, reg: float) -> jax.Array:
    """The solved labels y* (S, C), float32.

    `y* = (K_ss + reg/S I) (K_st K_ts + reg/S I)^-1 K_st y_t`: here `reg` is absolute, not relative
    to the kernel's trace. In float32 the second ridge may be larger, see `ridge_of`.
    """
    return _lifted(krr.add_ridge(k_ss, reg / len(k_ss)), solution(sums, reg))


def fitting_labels(k_ss: jax.Array, sums: Sums, reg: float) -> jax.Array:
    """Labels (S, C), float32, for which `krr.solve` with `reg` returns `solution(sums, reg)`.

    `reg` is absolute in the solution, and relative to the mean diagonal of `k_ss` in `krr.solve`.
    """
    return labels_of(k_ss, solution(sums, reg), reg)


def labels_of(k_ss: jax.Array, alpha: jax.Array, reg: float) -> jax.Array:
    """Labels (S, C), float32, for which `krr.solve` with `reg` returns `alpha` (S, C)."""
    return _lifted(krr.regularised(k_ss, reg), alpha)


def _lifted(k_reg: jax.Array, alpha: jax.Array) -> jax.Array:
    return product(k_reg, alpha).astype(jnp.float32)
