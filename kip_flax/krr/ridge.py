"""Kernel ridge regression in pure JAX: regularise, solve, predict, measure.

Nguyen, Chen, Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021 (KIP: eq. 1 and
section 2). Shapes: S support images, T target images, C classes. Everything is differentiable.

Solves run in float64, or on a TPU in pairs of float32. Their arguments and results are float64 if
`jax_enable_x64` is on, else float32. Products always use the highest precision, because
accelerators otherwise round float32 operands. `solve` (KIP, evaluation) adds a ridge relative to
the mean of the diagonal, `label_solve` an absolute one; both use `solve_positive_definite`.
"""

import jax
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from kip_flax.runtime.errors import UserError
from kip_flax.runtime.precision import (
    in_float64,
    inverse_factor_in_pairs,
    product,
    solve_in_pairs,
    widest_dtype,
)


def solve_dtype() -> np.dtype:
    """The precision of a solve's arguments and results: float64 if JAX has it switched on."""
    return widest_dtype()


def add_ridge(k: ArrayLike, ridge: ArrayLike) -> Array:
    """`k + ridge * I` in `solve_dtype()`, with an absolute `ridge`."""
    k = jnp.asarray(k, solve_dtype())
    return k + jnp.asarray(ridge, k.dtype) * jnp.eye(len(k), dtype=k.dtype)


def regularised(k_ss: ArrayLike, reg: float) -> Array:
    """`k_ss + reg * trace(k_ss)/S * I` (S, S) in `solve_dtype()`; `solve` inverts it.

    In float32 the sum rounds `reg` to multiples of about 1e-7.
    """
    k = jnp.asarray(k_ss, solve_dtype())
    return add_ridge(k, reg * jnp.trace(k) / len(k))


def solve_positive_definite(k: Array, y: ArrayLike) -> Array:
    """`k^-1 y` by Cholesky, (S, C) in the precision of `k`; NaN if `k` is not positive definite.

    `k` (S, S) is symmetrised first, as float32 kernels are not quite symmetric.
    """
    k, y = (k + k.T) / 2, jnp.asarray(y, k.dtype)
    if k.dtype == jnp.float64:
        # The gradient is one more solve with the same factor; no Cholesky is differentiated.
        return jax.scipy.linalg.solve(k, y, assume_a="pos")

    def of_k(x: Array) -> Array:
        return product(k, x)

    return lax.custom_linear_solve(of_k, y, lambda _, b: _solve_float32(k, b), symmetric=True)


def _solve_float32(k: Array, b: Array) -> Array:
    """`k^-1 b` for float32 arrays, solved in float64 or, on a TPU, in pairs of float32."""

    def cholesky(k: Array, b: Array) -> Array:
        k, b = k.astype(jnp.float64), b.astype(jnp.float64)
        return jax.scipy.linalg.solve(k, b, assume_a="pos").astype(jnp.float32)

    return in_float64(cholesky, solve_in_pairs, k, b)


def inverse_factor(k: Array) -> Array:
    """W (S, S) with W^T W = k^-1, in the precision of `k`; NaN if it is not positive definite."""

    def cholesky(k: Array) -> Array:
        factor = jnp.linalg.cholesky(k.astype(jnp.float64))
        return jax.scipy.linalg.solve_triangular(factor, jnp.eye(len(k)), lower=True)

    k = (k + k.T) / 2
    if k.dtype == jnp.float64:
        return cholesky(k)
    return in_float64(lambda k: cholesky(k).astype(jnp.float32), inverse_factor_in_pairs, k)


def solve(k_ss: ArrayLike, y_s: ArrayLike, reg: float) -> Array:
    """`alpha = (k_ss + reg * trace(k_ss)/S * I)^-1 y_s`, with KIP's scale-free regulariser.

    Args:
        k_ss: (S, S) kernel of the support.
        y_s: (S, C) support labels.
        reg: regulariser, in units of the mean diagonal entry of `k_ss`.

    Returns:
        (S, C) in `solve_dtype()`; NaN if the regularised kernel is not positive definite (see
        `check_positive_definite`).
    """
    return solve_positive_definite(regularised(k_ss, reg), y_s)


def predict(k_ts: ArrayLike, alpha: Array) -> Array:
    """Predictions `k_ts @ alpha` for targets, float32 (T, C), from k_ts (T, S), alpha (S, C)."""
    return product(jnp.asarray(k_ts, alpha.dtype), alpha).astype(jnp.float32)


def loss(pred: Array, y_t: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """`0.5 * mean((pred - y_t)^2)` over all T*C entries: the KIP loss, reported as `test_mse`.

    Args:
        pred, y_t: (T, C).
        weights: (T,), 1 for real rows and 0 for padding; None counts every row.
    """
    return 0.5 * _row_mean(jnp.mean(jnp.square(pred - jnp.asarray(y_t)), axis=1), weights)


def accuracy(pred: Array, labels: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Share (0 to 1) of rows of `pred` (T, C) largest at `labels` (T,); `weights` as in `loss`."""
    return _row_mean((jnp.argmax(pred, axis=1) == labels).astype(jnp.float32), weights)


def check_positive_definite(k_ss: ArrayLike, reg: float) -> None:
    """Host-side check that `solve` will succeed: a Cholesky of the (S, S) kernel in float64.

    Raises:
        UserError: the regularised kernel is not positive definite, or not finite.
    """
    k = np.asarray(k_ss, np.float64)
    if not np.isfinite(k).all():
        raise UserError(
            "the kernel of the support holds NaN or inf: take smaller steps, or start from images "
            "without NaN."
        )
    ridge = reg * np.trace(k) / len(k)
    try:
        np.linalg.cholesky((k + k.T) / 2 + ridge * np.eye(len(k)))
    except np.linalg.LinAlgError:
        raise UserError(
            f"the kernel of the support is not positive definite with the regulariser reg={reg:g}: "
            f"raise it, for example --config.reg={max(10 * reg, 1e-6):g}."
        ) from None


def _row_mean(values: Array, weights: ArrayLike | None) -> Array:
    if weights is None:
        return jnp.mean(values)
    weights = jnp.asarray(weights, values.dtype)
    return jnp.sum(values * weights) / jnp.sum(weights)
