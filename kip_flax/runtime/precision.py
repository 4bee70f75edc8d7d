"""Higher precision than float32: float64, or pairs of float32 where there is no float64.

`jax_enable_x64` is off by default, and TPUs have no float64. Code that needs more digits calls
`in_float64`, which does not depend on that switch and takes a substitute for TPUs.

A pair (high, low) of float32 holds a number to 2^-46. The sums and products here are exact up to
that, even if a compiler fuses a product with a sum, because every product has at most 24 bits.
After Dekker, Numerische Mathematik 18, 1971, and Knuth, The Art of Computer Programming, section
4.2.2.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Pair = tuple[Array, Array]

_UPPER_BITS = np.uint32(0xFFFFF000)  # Sign, exponent and 12 bits of the 24.


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


def has_float64() -> Array:
    """Whether the device that runs the program has float64: a scalar bool, known at compilation."""
    return lax.platform_dependent(
        tpu=lambda: jnp.zeros((), bool), default=lambda: jnp.ones((), bool)
    )


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


def add(a: Pair, b: Pair) -> Pair:
    """a + b."""
    high, error = _exact_sum(a[0], b[0])
    low, lowest = _exact_sum(a[1], b[1])
    high, error = _exact_sum(high, error + low)
    return _exact_sum(high, error + lowest)


def subtract(a: Pair, b: Pair) -> Pair:
    """a - b."""
    return add(a, (-b[0], -b[1]))


def multiply(a: Pair, b: Pair) -> Pair:
    """a * b."""
    high, low = _exact_product(a[0], b[0])
    return _exact_sum(high, low + (a[0] * b[1] + a[1] * b[0]))


def divide(a: Pair, b: Pair) -> Pair:
    """a / b: three digits of long division, each a float32."""
    total: Pair | None = None
    for _ in range(3):
        digit = a[0] / b[0]
        part = (digit, jnp.zeros_like(digit))
        a = subtract(a, multiply(part, b))
        total = part if total is None else add(total, part)
    assert total is not None
    return total


def _exact_sum(a: Array, b: Array) -> Pair:
    """The float32 sum and its rounding error."""
    total = a + b
    rest = total - a
    return total, (a - (total - rest)) + (b - rest)


def _exact_product(a: Array, b: Array) -> Pair:
    """The float32 product and its rounding error, from four products of 12 bits by 12."""
    (a1, a2), (b1, b2) = _halves(a), _halves(b)
    high, low = _exact_sum(a1 * b1, a1 * b2)
    high, more = _exact_sum(high, a2 * b1)
    return _exact_sum(high, low + more + a2 * b2)


def _halves(x: Array) -> Pair:
    """Two numbers of 12 bits with the sum x."""
    bits = lax.bitcast_convert_type(x, jnp.uint32) & _UPPER_BITS
    upper = lax.bitcast_convert_type(bits, jnp.float32)
    return upper, x - upper
