"""The ReLU on covariances: arc-cosine kernel, derivative kernel, and the derivatives of both.

Cho and Saul, NeurIPS 2009. With c the correlation of two pre-activations and q the product of
their standard deviations,

    D(c)   = (pi - arccos c) / (2 pi)                  derivative kernel, T' = U D
    K'(c)  = q (c D + sqrt(1 - c^2) / (2 pi))           covariance after the ReLU

The derivative of D is unbounded near c = 1. For two equal patches, where the kernel has a kink, the
subgradient 0 is used: it is the derivative along x1 = x2.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

_HALF_OVER_PI = 0.5 / math.pi
# arccos a = sqrt(1 - a) * P(a) on [0, 1], error 2e-8: Abramowitz and Stegun 4.4.46.
_ARCCOS = (
    *(-0.0012624911, 0.0066700901, -0.0170881256, 0.0308918810),
    *(-0.0501743046, 0.0889789874, -0.2145988016, 1.5707963050),
)
# A smaller 1 - |c| is rounding error: the two patches count as equal (or opposite).
_EQUAL = {np.dtype(np.float32): 5e-7, np.dtype(np.float64): 1e-14}


def derivative_kernel(c: jax.Array) -> jax.Array:
    """D(c) for correlations c in [-1, 1], in the precision of c."""
    if c.dtype == jnp.float64:
        return (math.pi - jnp.arccos(c)) * _HALF_OVER_PI
    a = jnp.abs(c)
    poly = jnp.full_like(a, _ARCCOS[0])
    for coefficient in _ARCCOS[1:]:
        poly = poly * a + jnp.float32(coefficient)
    arccos = jnp.sqrt(1 - a) * poly
    return jnp.where(c < 0, arccos, jnp.float32(math.pi) - arccos) * jnp.float32(_HALF_OVER_PI)


def half_sine(c: jax.Array) -> jax.Array:
    """sqrt(1 - c^2) / (2 pi), without cancellation near |c| = 1."""
    return jnp.sqrt((1 - c) * (1 + c)) * jnp.asarray(_HALF_OVER_PI, c.dtype)


def derivative_slope(c: jax.Array, q: jax.Array) -> jax.Array:
    """dD/db = 1 / (2 pi q sqrt(1 - c^2)) for b = c q; 0 where q is 0 or |c| is 1 up to rounding."""
    none = (1 - jnp.abs(c) < _EQUAL[np.dtype(c.dtype)]) | (q == 0)
    sine = jnp.sqrt(jnp.where(none, 1, (1 - c) * (1 + c)))
    return jnp.where(none, 0, jnp.asarray(_HALF_OVER_PI, c.dtype) / jnp.where(none, 1, q * sine))


def correlation(b: jax.Array, q: jax.Array) -> jax.Array:
    """c = b / q in [-1, 1], 1 for equal patches, 0 where q, the product of deviations, is 0.

    D falls like sqrt(1 - c) from c = 1. If c were not snapped to 1, its rounding alone would cost D
    1e-4 on every pixel of a background that two images share.
    """
    c = jnp.clip(jnp.where(q > 0, b / jnp.where(q > 0, q, 1), 0), -1, 1)
    return jnp.where(1 - jnp.abs(c) < _EQUAL[np.dtype(c.dtype)], jnp.sign(c), c)


def deviation(v: jax.Array) -> jax.Array:
    """sqrt(v), with the gradient 0 at v = 0 (where both the bias and the patch are 0)."""
    return jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1)), 0)


@jax.custom_vjp
def relu(b: jax.Array, u: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Covariance and tangent kernel after a ReLU.

    Args:
        b: covariance of the pre-activations.
        u: tangent kernel before the ReLU.
        q: product of the standard deviations.

    Returns:
        K' and T', broadcast.
    """
    return _relu_fwd(b, u, q)[0]


def _relu_fwd(b: jax.Array, u: jax.Array, q: jax.Array) -> tuple:
    c = correlation(b, q)
    d = derivative_kernel(c)
    return (q * (c * d + half_sine(c)), u * d), (c, d, u, q)


def _relu_bwd(residuals: tuple, cotangents: tuple) -> tuple:
    c, d, u, q = residuals
    gk, gt = cotangents
    slope = gt * u * derivative_slope(c, q)
    gb = gk * d + slope
    gq = gk * half_sine(c) - slope * c
    return gb, gt * d, gq


relu.defvjp(_relu_fwd, _relu_bwd)
