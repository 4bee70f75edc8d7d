"""The kernel of all pairs and the gradient of each entry in its own support image.

A tile has one support image for all its lanes. Here every lane gets a copy of its own, so that the
gradient of the tile's fixed side is that of each pair.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kip_flax.kernels import near_duplicates
from kip_flax.kernels.plan import KernelPlan
from kip_flax.kernels.xla import kernel, tiles
from kip_flax.kernels.xla.layout import lay_out
from kip_flax.kernels.xla.variances import variances
from kip_flax.runtime.batching import split_rows

_MEMORY = 4  # Beside its planes a lane has those of its variances, with their gradients.


def make_xla_jacobian(
    plan: KernelPlan, get: str
) -> Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """`jacobian(x_t, x_s)`: the kernel (T, S), and its gradients (S, T, H W C) in x_s."""
    paired = kernel.make_paired(plan, get)

    def jacobian(x_t: jax.Array, x_s: jax.Array) -> tuple[jax.Array, jax.Array]:
        lanes = tiles.lanes_for(plan, len(x_t), _MEMORY)
        parts = split_rows(tiles.with_variances(plan, x_t), lanes)

        def of_image(image: jax.Array) -> tuple[jax.Array, jax.Array]:
            return jax.lax.map(lambda part: of_tile(image, part), parts)

        def of_tile(image: jax.Array, part: tiles.Images) -> tuple[jax.Array, jax.Array]:
            moving = lay_out(plan, part.x, part.variances, lanes, moving=True)

            def entries(copies: jax.Array) -> jax.Array:
                fixed = lay_out(plan, copies, variances(plan, copies), lanes, moving=False)
                return tiles.tile(plan, get, lanes, fixed, moving)

            k, pull = jax.vjp(entries, jnp.broadcast_to(image, (lanes, *image.shape)))
            dk = pull(jnp.ones_like(k))[0].reshape(lanes, -1)
            k, dk = near_duplicates.corrected_gradients(
                paired, k[None], dk[None], image[None], part.x
            )
            return k[0], dk[0]

        k, dk = jax.lax.map(of_image, x_s)
        k = k.reshape(len(x_s), -1)[:, : len(x_t)]
        return k.T, dk.reshape(len(x_s), -1, dk.shape[-1])[:, : len(x_t)]

    return jacobian
