"""Recomputes pairs of nearly equal images with more digits than float32 has.

For such pairs 1 - c is a small difference of float32 numbers, and the gradient loses digits (1 % at
|x1 - x2|^2 about 1e-6 |x|^2). They are few: the diagonal of K_ss, and targets from which a support
image was drawn. They are found by distance, gathered a chunk at a time and computed in float64 by
the same code, whether or not `jax_enable_x64` is on. A TPU has no float64: there the kernel of
`carried_distance` computes them in pairs of float32. Pairs that differ clearly in a few pixels (a
cutout) do not count as near, and float32 is enough for them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from kip_flax.kernels.carried_distance import make_carried, pixel_pairs
from kip_flax.kernels.options import Kernel
from kip_flax.kernels.plan import KernelPlan
from kip_flax.runtime.pair_program import in_pairs
from kip_flax.runtime.precision import product, widest_dtype

_NEAR = 1e-3  # |x1 - x2|^2 relative to |x1|^2 + |x2|^2
_CHUNK = 16
_CARRIED_BYTES = 2**29  # At most of the arrays that `carried_distance` has of a chunk,
_CARRIED_ARRAYS = 30  # which are so many pairs of float32 a pixel pair, gradient included.


class Paired(NamedTuple):
    """The kernel (m,) of m pairs of images, (m, H, W, C) and (m, H, W, C), in two ways.

    It has to be symmetric.

    Attributes:
        kernel: for any precision; needs a gradient in its first argument only.
        carried: for pairs of float32 (`runtime.pair_program`).
        chunk: pairs that `carried` takes at once.
    """

    kernel: Kernel
    carried: Kernel
    chunk: int = _CHUNK


def make_paired(plan: KernelPlan, get: str, kernel: Kernel) -> Paired:
    """A network's `Paired`; `kernel` is its own kernel of m pairs, 'ntk' or 'nngp'."""
    chunk = min(_CHUNK, max(1, _CARRIED_BYTES // (8 * _CARRIED_ARRAYS * pixel_pairs(plan))))
    return Paired(kernel, make_carried(plan, get), chunk)


def near(x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Which images of x1 (n1, ...) and x2 (n2, ...) are nearly equal, (n1, n2) bool."""
    a, b = (lax.stop_gradient(x).reshape(len(x), -1) for x in (x1, x2))
    scale = jnp.sum(a * a, axis=1)[:, None] + jnp.sum(b * b, axis=1)[None]
    return scale - 2 * product(a, b.T) <= _NEAR * scale


def corrected(paired: Paired, kernel: jax.Array, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """`kernel` (n1, n2) with the near-duplicates replaced by their exact values."""
    mask = near(x1, x2)
    return jnp.where(mask, _near_values(paired, mask, x1, x2).astype(kernel.dtype), kernel)


def corrected_gradients(
    paired: Paired, k: jax.Array, dk: jax.Array, x1: jax.Array, x2: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`k` (n1, n2) and `dk` (n1, n2, P) with the near-duplicates replaced by exact ones.

    Args:
        paired: as in `corrected`.
        k, dk: the kernel, and the gradient of each entry in the P numbers of its image of x1.
    """
    mask = near(x1, x2)

    def exact(pairs: "_Pairs", mask: jax.Array, x1: jax.Array, x2: jax.Array) -> Any:
        def chunk(found: Any, at: jax.Array, a: jax.Array, b: jax.Array) -> Any:
            values, gradients = pairs.gradients(a, b)
            entries = values, gradients.reshape(len(at), -1)
            return tuple(
                old.at[at].set(new.astype(old.dtype), mode="drop")
                for old, new in zip(found, entries, strict=True)
            )

        nothing = jnp.zeros(mask.size, k.dtype), jnp.zeros((mask.size, dk.shape[2]), dk.dtype)
        return _over_chunks(chunk, nothing, pairs.chunk, mask, x1, x2)

    near_k, near_dk = _with_more_digits(exact, paired, mask, x1, x2)
    return (
        jnp.where(mask, near_k.reshape(k.shape), k),
        jnp.where(mask[:, :, None], near_dk.reshape(dk.shape), dk),
    )


class _Pairs(NamedTuple):
    """Of m pairs of images: `values` (m,), and the same with `gradients` in the first image.

    They are computed `chunk` at a time, and are of type `dtype`.
    """

    values: Callable[[jax.Array, jax.Array], jax.Array]
    gradients: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    chunk: int
    dtype: Any


def _with_more_digits(fn: Callable[..., Any], paired: Paired, *args: jax.Array) -> Any:
    """`fn(pairs, *args)`, by float64 or, on a TPU, by pairs of float32.

    The default device decides when JAX traces, for tracing both takes seconds.
    """
    args = tuple(map(jnp.asarray, args))
    if jax.default_backend() == "tpu":
        carried = in_pairs(paired.carried), in_pairs(_with_gradients(paired.carried))
        return fn(_Pairs(*carried, paired.chunk, jnp.float32), *args)

    def wide(of: Callable[..., Any]) -> Callable[..., Any]:
        return lambda a, b: of(a.astype(jnp.float64), b.astype(jnp.float64))

    exact = wide(paired.kernel), wide(_with_gradients(paired.kernel))
    with jax.enable_x64(True):
        return fn(_Pairs(*exact, _CHUNK, jnp.float64), *args)


def _with_gradients(kernel: Kernel) -> Callable[..., tuple[jax.Array, jax.Array]]:
    def both(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, pull = jax.vjp(lambda a: kernel(a, b), a)
        return values, pull(jnp.ones_like(values))[0]

    return both


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _near_values(paired: Paired, mask: jax.Array, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """The kernel (n1, n2) where `mask` is set, 0 elsewhere."""
    dtype = widest_dtype()

    def exact(pairs: _Pairs, mask: jax.Array, x1: jax.Array, x2: jax.Array) -> jax.Array:
        def chunk(found: jax.Array, at: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
            return found.at[at].set(pairs.values(a, b).astype(dtype), mode="drop")

        nothing = jnp.zeros(mask.size, dtype)
        return _over_chunks(chunk, nothing, pairs.chunk, mask, x1, x2).reshape(mask.shape)

    return _with_more_digits(exact, paired, mask, x1, x2)


def _over_chunks(
    chunk: Callable[..., Any],
    start: Any,
    most: int,
    mask: jax.Array,
    x1: jax.Array,
    x2: jax.Array,
) -> Any:
    """Folds `chunk(state, flat indices, images, images)` over pairs in `mask`, `most` at once."""
    size = min(most, mask.size)
    flat = mask.ravel()
    # Pair number n of the mask is where the sum reaches n.
    ranks = lax.cond(flat.any(), jnp.cumsum, lambda flat: jnp.zeros(flat.shape, int), flat)

    def body(carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        done, state = carry
        at = jnp.searchsorted(ranks, done + 1 + jnp.arange(size))  # The end of `ranks` fills up.
        pair = jnp.minimum(at, mask.size - 1)
        rows, columns = pair // mask.shape[1], pair % mask.shape[1]
        return done + size, chunk(state, at, x1[rows], x2[columns])

    zero = jnp.zeros((), ranks.dtype)
    return lax.while_loop(lambda carry: carry[0] < ranks[-1], body, (zero, start))[1]


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

    def exact(
        pairs: _Pairs, mask: jax.Array, x1: jax.Array, x2: jax.Array, g: jax.Array
    ) -> jax.Array:
        def chunk(total: jax.Array, at: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
            _, gradients = pairs.gradients(a, b)
            here = g.ravel().at[at].get(mode="fill", fill_value=0).astype(pairs.dtype)
            weighted = jnp.expand_dims(here, tuple(range(1, x1.ndim))) * gradients
            # Indices that fill up the last chunk point to a row past the end, and are dropped.
            return total.at[at // mask.shape[1]].add(weighted, mode="drop")

        zeros = jnp.zeros(x1.shape, pairs.dtype)
        return _over_chunks(chunk, zeros, pairs.chunk, mask, x1, x2).astype(x1.dtype)

    return _with_more_digits(exact, paired, mask, x1, x2, g)


_near_values.defvjp(_near_fwd, _near_bwd, symbolic_zeros=True)
