"""Higher precision than float32: float64, or pairs of float32 where there is no float64.

`jax_enable_x64` is off by default, and TPUs have no float64. Code that needs more digits calls
`in_float64`, which does not depend on that switch and takes a substitute for TPUs, in
`float_pairs`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from kip_flax.runtime.float_pairs import Pair, divide, multiply, subtract


def in_float64(fn: Callable[..., Any], on_tpu: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, traced with float64 on; on a TPU `on_tpu(*args)`.

    Args:
        fn: casts its arguments to float64 itself, and its results back. Both functions return
            the same shapes and types, and no float64 if JAX has it switched off.
        on_tpu: uses no float64.
    """

    def exact(*args: Any) -> Any:
        with jax.enable_x64(True):
            return fn(*args)

    return lax.platform_dependent(*args, tpu=on_tpu, default=exact)


def widest_dtype() -> np.dtype:
    """float64 if JAX has it switched on, else float32."""
    return jax.dtypes.canonicalize_dtype(np.float64)


def product(a: Array, b: Array) -> Array:
    """`a @ b` in the highest precision: accelerators round float32 operands otherwise."""
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def solve_in_pairs(a: Array, b: Array) -> Array:
    """`a^-1 b` in pairs of float32.

    Args:
        a: (n, n) float32, symmetric and positive definite.
        b: (n, m) float32.

    Returns:
        (n, m) float32, to 1e-5 at condition numbers up to 1e7; NaN if a pivot is not positive.
    """
    _, (high, low) = _eliminated(a, b, above=True)
    return high + low


def inverse_factor_in_pairs(a: Array) -> Array:
    """W (n, n) float32 with W^T W = a^-1, lower triangular; `a` as in `solve_in_pairs`."""
    pivots, (high, low) = _eliminated(a, jnp.eye(len(a), dtype=a.dtype), above=False)
    return (high + low) * lax.rsqrt(pivots)[:, None]


def _eliminated(a: Array, b: Array, above: bool) -> tuple[Array, Pair]:
    """The pivots (n,) of Gaussian elimination on `a` (n, n), and the reduced `b` (n, m).

    Without `above` that is L^-1 b, where a = L diag(pivots) L^T and L has a unit diagonal. With it
    (Gauss-Jordan), rows above a pivot are reduced too and each row is divided by its pivot: a^-1 b.
    """
    size, width = len(a), len(a) + b.shape[1]
    numbers = jnp.arange(size)[:, None]

    def eliminate(i: Array, carry: tuple[Array, Pair]) -> tuple[Array, Pair]:
        pivots, (high, low) = carry
        pivot = jnp.where(high[i, i] > 0, high[i, i], jnp.nan), low[i, i]
        scaled = divide((high[i][None], low[i][None]), pivot)
        column = (high[:, i][:, None], low[:, i][:, None])
        reduced = subtract((high, low), multiply(column, scaled))
        kept = (numbers == i) | (numbers < i if not above else False)
        own = scaled if above else (high, low)
        rows = tuple(jnp.where(kept, o, r) for o, r in zip(own, reduced, strict=True))
        return pivots.at[i].set(pivot[0]), (rows[0], rows[1])

    start = jnp.concatenate([a, b], axis=1)
    carry = (jnp.zeros(size, a.dtype), (start, jnp.zeros((size, width), a.dtype)))
    pivots, (high, low) = lax.fori_loop(0, size, eliminate, carry)
    return pivots, (high[:, size:], low[:, size:])
