"""The kernel of two image sets in plain JAX, with more digits for nearly equal pairs."""

import jax

from kip_flax.kernels import near_duplicates
from kip_flax.kernels.options import Kernel
from kip_flax.kernels.plan import KernelPlan
from kip_flax.kernels.xla import tiles
from kip_flax.kernels.xla.layout import lay_out
from kip_flax.kernels.xla.variances import variances


def make_xla_kernel(plan: KernelPlan, get: str) -> Kernel:
    """`kernel(x1, x2)` -> (n1, n2), 'ntk' or 'nngp', differentiable in both image sets."""
    in_tiles, paired = make_tile_kernel(plan, get), make_paired(plan, get)

    def kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
        return near_duplicates.corrected(paired, in_tiles(x1, x2), x1, x2)

    return kernel


def make_paired(plan: KernelPlan, get: str) -> near_duplicates.Paired:
    """The entry (m,) of each of m pairs, with its gradient in the first image."""

    def paired(x1: jax.Array, x2: jax.Array) -> jax.Array:
        lanes = len(x1)
        fixed = lay_out(plan, x1, variances(plan, x1), lanes, moving=False)
        moving = lay_out(plan, x2, variances(plan, x2), lanes, moving=True)
        return tiles.tile(plan, get, lanes, fixed, jax.lax.stop_gradient(moving))

    return near_duplicates.make_paired(plan, get, paired)


def make_tile_kernel(plan: KernelPlan, get: str) -> Kernel:
    """The kernel of `make_xla_kernel`, but with nearly equal pairs in the images' own precision."""

    def kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
        one, two = tiles.with_variances(plan, x1), tiles.with_variances(plan, x2)
        return tiles.pair_kernel(plan, get, one, two)

    return kernel
