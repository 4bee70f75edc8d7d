"""ReLU on covariances: the arc-cosine kernel, its derivative, and both their derivatives.

Cho and Saul, NeurIPS 2009. With c the correlation of two pre-activations and q the product of
their standard deviations,

    D(c)   = (pi - arccos c) / (2 pi)                  derivative kernel, T' = U D
    K'(c)  = q (c D + sqrt(1 - c^2) / (2 pi))           covariance after the ReLU

Near c = 1 the derivative of D grows without bound while the kernel has a kink: two equal patches
give the subgradient 0, which is the derivative along x1 = x2.
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
# Below this 1 - |c| is rounding: the two patches count as equal.
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


def derivative_slope(c: jax.Array) -> jax.Array:
    """dD/dc = 1 / (2 pi sqrt(1 - c^2)), and 0 where |c| is 1 up to rounding."""
    equal = 1 - jnp.abs(c) < _EQUAL[np.dtype(c.dtype)]
    sine_squared = jnp.where(equal, 1, (1 - c) * (1 + c))
    slope = jax.lax.rsqrt(sine_squared) * jnp.asarray(_HALF_OVER_PI, c.dtype)
    return jnp.where(equal, 0, slope)


def correlation(b: jax.Array, r: jax.Array) -> jax.Array:
    """c = b * r in [-1, 1], 1 for equal patches; `r` is the inverse product of deviations.

    D falls like sqrt(1 - c) from c = 1: the rounding of c alone would cost it 1e-4 on every pixel
    of a background that two images share.
    """
    c = jnp.clip(b * r, -1, 1)
    return jnp.where(1 - jnp.abs(c) < _EQUAL[np.dtype(c.dtype)], jnp.sign(c), c)


def inverse(x: jax.Array) -> jax.Array:
    """1 / x, and 0 where x is 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def deviation(v: jax.Array) -> jax.Array:
    """Square root with the gradient 0 at 0 (a variance is 0 only where bias and patch are)."""
    return jnp.where(v > 0, jnp.sqrt(jnp.where(v > 0, v, 1)), 0)


@jax.custom_vjp
def relu(b: jax.Array, u: jax.Array, q: jax.Array, r: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Covariance and tangent kernel after a ReLU.

    Args:
        b: covariance of the pre-activations.
        u: tangent kernel before the ReLU.
        q: product of the standard deviations.
        r: 1 / q, or 0 where q is 0. It carries no gradient of its own: q's includes it.

    Returns:
        K' and T', broadcast.
    """
    return _relu_fwd(b, u, q, r)[0]


def _relu_fwd(b: jax.Array, u: jax.Array, q: jax.Array, r: jax.Array) -> tuple:
    c = correlation(b, r)
    d = derivative_kernel(c)
    return (q * (c * d + half_sine(c)), u * d), (c, d, u, r)


def _relu_bwd(residuals: tuple, cotangents: tuple) -> tuple:
    c, d, u, r = residuals
    gk, gt = cotangents
    slope = gt * u * derivative_slope(c) * r
    gb = gk * d + slope
    gq = gk * half_sine(c) - slope * c
    return gb, gt * d, gq, jnp.zeros_like(r)


relu.defvjp(_relu_fwd, _relu_bwd)
