"""Label Solve (Nguyen et al., ICLR 2021, section 3.2): the best labels for given support images.

The labels minimise the KRR loss on all training targets in closed form. Only two sums over the
targets are needed, K_st K_ts (S, S) and K_st y_t (S, classes); they are gathered tile by tile.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kip_flax import krr
from kip_flax.state import LsState

Kernel = Callable[[jax.Array, jax.Array], jax.Array]
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
        k_ts = kernel(x_t, state.images).astype(state.gram.dtype) * weights[:, None]
        k_st = k_ts.T
        product = jax.lax.Precision.HIGHEST
        return state.replace(
            step=state.step + 1,
            gram=state.gram + jnp.matmul(k_st, k_ts, precision=product),
            cross=state.cross + jnp.matmul(k_st, y_t.astype(k_st.dtype), precision=product),
        )

    return jax.jit(step, donate_argnums=0)


def solve_labels(k_ss: jax.Array, gram: jax.Array, cross: jax.Array, reg: float) -> jax.Array:
    """The solved labels y* (S, classes), float32.

    `y* = (K_ss + reg/S I) (K_st K_ts + reg/S I)^-1 K_st y_t`: here `reg` is absolute, not relative
    to the kernel's trace.
    """
    ridge = reg / len(gram)
    k_reg = krr.add_ridge(k_ss, ridge)
    solution = krr.solve_positive_definite(krr.add_ridge(gram, ridge), cross)
    return jnp.matmul(k_reg, solution, precision=jax.lax.Precision.HIGHEST).astype(jnp.float32)
