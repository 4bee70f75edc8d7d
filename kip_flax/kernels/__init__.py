"""Kernels of infinitely wide networks: description -> `kernel(x1, x2)`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from kip_flax import architectures as arch
from kip_flax.kernels import band, duplicates, tiles, variances, xla
from kip_flax.kernels.layout import deviation, lay_out
from kip_flax.kernels.options import (
    GETS,
    IMPLEMENTATIONS,
    PARAMETERIZATIONS,
    Kernel,
    KernelOptions,
    resolve,
)
from kip_flax.runtime.errors import UserError

__all__ = [
    "GETS",
    "IMPLEMENTATIONS",
    "PARAMETERIZATIONS",
    "Kernel",
    "KernelOptions",
    "make_kernel",
    "resolve",
    "warm_up",
]


def warm_up(options: KernelOptions, say: Callable[[str], None]) -> None:
    """Compiles ahead what `make_kernel` of the same options would compile at its first call.

    `say` is told if that takes long. 'xla' compiles with the step that calls it, not here.
    """
    if not any(isinstance(layer, arch.Conv) for layer in options.spec):
        return
    if resolve(options.implementation) == "xla":
        say("the first step is compiled before it runs: up to a minute, unless kept from before")
    if resolve(options.implementation) == "cpu":
        from kip_flax.kernels.cpu.warm_up import warm_up as compile_ahead

        compile_ahead(say)


def make_kernel(spec: arch.Spec | KernelOptions, **options: Any) -> Kernel:
    """The infinite-width kernel of a network.

    Args:
        spec: description, from `architectures`, or `KernelOptions`, which have it.
        options: beside a description, the fields of `KernelOptions` by their names: w_std, b_std,
            parameterization, width, get, implementation.

    Returns:
        `kernel(x1, x2)`: images (n1, H, W, C) and (n2, H, W, C) to (n1, n2) in their precision;
        can be jitted and differentiated in both. In float32, pairs of nearly equal images are
        computed in float64 where JAX has it on (`jax_enable_x64`).

    Raises:
        UserError: a name that is not on offer; on call, images too small for the pools.
    """
    if not isinstance(spec, KernelOptions):
        return make_kernel(KernelOptions(spec, **options))
    if options:
        raise TypeError(f"{', '.join(options)}: KernelOptions say it already.")
    chosen = spec
    implementation = resolve(chosen.implementation)
    if implementation == "neural_tangents":
        from kip_flax.kernels import reference

        return reference.make_reference_kernel(chosen)

    def kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
        _check_images(x1, x2)
        if x2 is x1:
            return duplicates.symmetric(pairs(x1, jax.lax.stop_gradient(x1), same=True))
        return pairs(x1, x2, same=False)

    def pairs(x1: jax.Array, x2: jax.Array, same: bool) -> jax.Array:
        x1, x2 = jnp.asarray(x1), jnp.asarray(x2)
        height, breadth, channels = x1.shape[1:]
        plan = band.make_plan(chosen, (height, breadth, channels))
        if not plan.convolutional:
            return _dense_kernel(plan, chosen.get, x1, x2)
        if implementation == "cpu":
            return _compiled_kernel(plan, channels, chosen.get)(x1, x2, same)
        v1 = tiles.all_variances(plan, x1)
        v2 = tiles.all_variances(plan, x2)
        k = tiles.pair_kernel(plan, chosen.get, x1, v1, x2, v2)
        return duplicates.corrected(_paired(plan, chosen.get), k, x1, x2)

    return kernel


def _compiled_kernel(plan: band.Plan, channels: int, get: str) -> Callable[..., jax.Array]:
    from kip_flax.kernels.cpu.kernel import make_compiled_kernel

    return make_compiled_kernel(plan, channels, get == "ntk")


def _paired(plan: band.Plan, get: str) -> duplicates.Paired:
    """Convolutional kernel image by image: (m, H, W, C), (m, H, W, C) -> (m,)."""

    def paired(x1: jax.Array, x2: jax.Array) -> jax.Array:
        lanes = len(x1)
        fixed = lay_out(plan, x1, variances.variances(plan, x1), lanes, moving=False)
        moving = lay_out(plan, x2, variances.variances(plan, x2), lanes, moving=True)
        return xla.tile(plan, get, lanes, fixed, jax.lax.stop_gradient(moving))

    return paired


def _dense_kernel(plan: band.Plan, get: str, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Kernel (n1, n2) of a network without convolutions: one matrix product and pointwise maps."""

    def ends(k: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        s1, s2 = (
            tuple(deviation(v) for v in xla.head_variances(plan.head, jnp.mean(x * x, axis=-1)))
            for x in (a, b)
        )
        return xla.head(plan.head, k, jnp.zeros_like(k), s1, s2)[get == "ntk"]

    def paired(a: jax.Array, b: jax.Array) -> jax.Array:
        a, b = (x.reshape(len(x), -1) for x in (a, b))
        return ends(jnp.mean(a * b, axis=-1), a, b)

    flat1, flat2 = (x.reshape(len(x), -1) for x in (x1, x2))
    k = jnp.matmul(flat1, flat2.T, precision=jax.lax.Precision.HIGHEST) / flat1.shape[1]
    k = ends(k, flat1[:, None], flat2[None])
    return duplicates.corrected(paired, k, x1, x2)


def _check_images(x1: jax.Array, x2: jax.Array) -> None:
    if x1.ndim != 4 or x2.ndim != 4 or x1.shape[1:] != x2.shape[1:]:
        raise UserError(
            f"a kernel takes images (n1, H, W, C) and (n2, H, W, C), not {x1.shape} and {x2.shape}."
        )
