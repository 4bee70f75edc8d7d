"""Label Solve (Nguyen et al., ICLR 2021, section 3.2): the best labels for given support images.

The labels minimise the KRR loss on all training targets in closed form. Only two sums over the
targets are needed, K_st K_ts (S, S) and K_st y_t (S, classes); they are gathered tile by tile.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kip_flax import krr
from kip_flax.algorithms._state import LsState
from kip_flax.kernels import Kernel

Step = Callable[[LsState, jax.Array, jax.Array, jax.Array], LsState]


def init(images: jax.Array, labels: jax.Array) -> LsState:
    """State before the first tile: support images (S, H, W, C), natural labels (S, classes)."""
    size, classes = labels.shape
    dtype = krr.solve_dtype()
    return LsState(
        step=jnp.zeros((), jnp.int32),
        images=jnp.asarray(images, jnp.float32),
        labels=jnp.asarray(labels, jnp.float32),
        gram=jnp.zeros((size, size), dtype),
        cross=jnp.zeros((size, classes), dtype),
    )


def make_step(kernel: Kernel) -> Step:
    """`step(state, x_t, y_t, weights) -> state`, compiled: adds one tile of targets to the sums.

    Targets x_t (T, H, W, C), labels y_t (T, classes), weights (T,), 0 where a target is padding.
    """

    def step(state: LsState, x_t: jax.Array, y_t: jax.Array, weights: jax.Array) -> LsState:
        gram, cross = sums(kernel(x_t, state.images), y_t, weights)
        return state.replace(step=state.step + 1, gram=state.gram + gram, cross=state.cross + cross)

    return jax.jit(step, donate_argnums=0)


def sums(k_ts: jax.Array, y_t: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """K_st K_ts (S, S) and K_st y_t (S, classes), in the precision of the solve.

    Args:
        k_ts: (T, S). y_t: (T, classes). weights: (T,), 0 where a target is padding.
    """
    k_ts = k_ts.astype(krr.solve_dtype()) * weights[:, None]
    product = jax.lax.Precision.HIGHEST
    gram = jnp.matmul(k_ts.T, k_ts, precision=product)
    return gram, jnp.matmul(k_ts.T, y_t.astype(k_ts.dtype), precision=product)


def solution(gram: jax.Array, cross: jax.Array, reg: float) -> jax.Array:
    """alpha* (S, classes): the predictions K_ts alpha* are the best that the support can give.

    `alpha* = (K_st K_ts + reg/S I)^-1 K_st y_t`; `reg` is absolute.
    """
    return krr.solve_positive_definite(krr.add_ridge(gram, reg / len(gram)), cross)


def solve_labels(k_ss: jax.Array, gram: jax.Array, cross: jax.Array, reg: float) -> jax.Array:
    """The solved labels y* (S, classes), float32.

    `y* = (K_ss + reg/S I) (K_st K_ts + reg/S I)^-1 K_st y_t`: here `reg` is absolute, not relative
    to the kernel's trace.
    """
    return _lifted(krr.add_ridge(k_ss, reg / len(gram)), solution(gram, cross, reg))


def fitting_labels(k_ss: jax.Array, gram: jax.Array, cross: jax.Array, reg: float) -> jax.Array:
    """As `solve_labels`, but exact for `krr.solve`: its ridge is `reg` as a share, not a number."""
    return _lifted(krr.regularised(k_ss, reg), solution(gram, cross, reg))


def _lifted(k_reg: jax.Array, alpha: jax.Array) -> jax.Array:
    return jnp.matmul(k_reg, alpha, precision=jax.lax.Precision.HIGHEST).astype(jnp.float32)
