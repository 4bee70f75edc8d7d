"""Recomputes pairs of nearly equal images in float64.

For such pairs 1 - c is a small difference of float32 numbers, and the gradient loses digits (1 % at
|x1 - x2|^2 about 1e-6 |x|^2). They are few: the diagonal of K_ss, and targets from which a support
image was drawn. They are found by distance, gathered a chunk at a time and computed by the same
code in float64, whether or not `jax_enable_x64` is on. Pairs that differ clearly in a few pixels
(a cutout) do not count as near, and float32 is enough for them.

A TPU has no float64, so such pairs stay in float32 there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from kip_flax.runtime.precision import has_float64, in_float64, product

Paired = Callable[[jax.Array, jax.Array], jax.Array]

_NEAR = 1e-3  # |x1 - x2|^2 relative to |x1|^2 + |x2|^2
_CHUNK = 16


def near(x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Which images of x1 (n1, ...) and x2 (n2, ...) are nearly equal, (n1, n2) bool."""
    a, b = (lax.stop_gradient(x).reshape(len(x), -1) for x in (x1, x2))
    scale = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None]
    return scale - 2 * product(a, b.T) <= _NEAR * scale


def corrected(paired: Paired, kernel: jax.Array, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """`kernel` (n1, n2) with the near-duplicates replaced by their float64 values.

    Args:
        paired: kernel (m,) of m pairs of images, (m, H, W, C) and (m, H, W, C). It has to be
            symmetric, but needs a gradient in its first argument only.
    """
    mask = near(x1, x2) & has_float64()
    return jnp.where(mask, _near_values(paired, mask, x1, x2).astype(kernel.dtype), kernel)


def corrected_gradients(
    paired: Paired, k: jax.Array, dk: jax.Array, x1: jax.Array, x2: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`k` (n1, n2) and `dk` (n1, n2, P) with the near-duplicates replaced by those of float64.

    Args:
        paired: as in `corrected`.
        k, dk: the kernel, and the gradient of each entry in the P numbers of its image of x1.
    """
    mask = near(x1, x2) & has_float64()

    def chunk(found: Any, at: jax.Array, a: jax.Array, b: jax.Array) -> Any:
        values, pull = jax.vjp(lambda a: paired(a, b), a)
        (gradients,) = pull(jnp.ones_like(values))
        entries = values, gradients.reshape(len(at), -1)
        return tuple(
            old.at[at].set(new.astype(old.dtype), mode="drop")
            for old, new in zip(found, entries, strict=True)
        )

    def exact(mask: jax.Array, x1: jax.Array, x2: jax.Array) -> Any:
        return _over_chunks(chunk, nothing(mask), mask, x1, x2)

    def nothing(mask: jax.Array, *_: jax.Array) -> Any:
        return jnp.zeros(mask.size, k.dtype), jnp.zeros((mask.size, dk.shape[2]), dk.dtype)

    near_k, near_dk = in_float64(exact, nothing, mask, x1, x2)
    return (
        jnp.where(mask, near_k.reshape(k.shape), k),
        jnp.where(mask[:, :, None], near_dk.reshape(dk.shape), dk),
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _near_values(paired: Paired, mask: jax.Array, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """The kernel (n1, n2) where `mask` is set, 0 elsewhere."""
    dtype = jax.dtypes.canonicalize_dtype(jnp.float64)

    def chunk(found: jax.Array, at: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        return found.at[at].set(paired(a, b), mode="drop")

    def exact(mask: jax.Array, x1: jax.Array, x2: jax.Array) -> jax.Array:
        found = _over_chunks(chunk, jnp.zeros(mask.size, jnp.float64), mask, x1, x2)
        return found.reshape(mask.shape).astype(dtype)

    def nothing(mask: jax.Array, *_: jax.Array) -> jax.Array:
        return jnp.zeros(mask.shape, dtype)

    return in_float64(exact, nothing, mask, x1, x2)


def _over_chunks(
    chunk: Callable[..., Any], start: Any, mask: jax.Array, x1: jax.Array, x2: jax.Array
) -> Any:
    """Folds `chunk(state, flat indices, float64 images, float64 images)` over pairs in `mask`."""
    size = min(_CHUNK, mask.size)

    def body(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        left, state = carry
        (at,) = jnp.nonzero(left, size=size, fill_value=mask.size)
        pair = jnp.minimum(at, mask.size - 1)
        rows, columns = pair // mask.shape[1], pair % mask.shape[1]
        images = (x1[rows].astype(jnp.float64), x2[columns].astype(jnp.float64))
        return left.at[at].set(False, mode="drop"), chunk(state, at, *images)

    return lax.while_loop(lambda carry: carry[0].any(), body, (mask.ravel(), start))[1]


def _near_fwd(paired: Paired, mask: Any, x1: Any, x2: Any) -> tuple:
    values = (mask.value, x1.value, x2.value)
    # The tree structure encodes which images need a gradient: () for yes, None for no.
    asked = tuple(() if x.perturbed else None for x in (x1, x2))
    return _near_values(paired, *values), (values, asked)


def _near_bwd(paired: Paired, residuals: tuple, g: Any) -> tuple:
    (mask, x1, x2), asked = residuals
    if isinstance(g, SymbolicZero):
        return None, None, None
    grads = [
        None if ask is None else _gradient(paired, m, a, b, weights)
        for ask, m, a, b, weights in zip(
            asked, (mask, mask.T), (x1, x2), (x2, x1), (g, g.T), strict=True
        )
    ]
    return None, *grads


def _gradient(
    paired: Paired, mask: jax.Array, x1: jax.Array, x2: jax.Array, g: jax.Array
) -> jax.Array:
    """Gradient of sum(g * kernel) over the pairs in `mask` with respect to x1."""

    def exact(mask: jax.Array, x1: jax.Array, x2: jax.Array, g: jax.Array) -> jax.Array:
        weights = g.ravel().astype(jnp.float64)

        def chunk(total: jax.Array, at: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
            here = weights.at[at].get(mode="fill", fill_value=0)
            (grad,) = jax.vjp(lambda a: paired(a, b), a)[1](here)
            # Indices that fill up the last chunk point to a row past the end, and are dropped.
            return total.at[at // mask.shape[1]].add(grad, mode="drop")

        zeros = jnp.zeros(x1.shape, jnp.float64)
        return _over_chunks(chunk, zeros, mask, x1, x2).astype(x1.dtype)

    def nothing(_: jax.Array, x1: jax.Array, *__: jax.Array) -> jax.Array:
        return jnp.zeros_like(x1)

    return in_float64(exact, nothing, mask, x1, x2, g)


_near_values.defvjp(_near_fwd, _near_bwd, symbolic_zeros=True)
