"""Makes the kernel of a network with the chosen implementation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kip_flax import architectures as arch
from kip_flax.kernels import near_duplicates
from kip_flax.kernels.head import dense_kernel
from kip_flax.kernels.mirrored import mirrored_kernel
from kip_flax.kernels.options import Kernel, KernelOptions, resolve
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.symmetry import symmetric
from kip_flax.kernels.xla.kernel import make_paired, make_xla_kernel
from kip_flax.runtime.errors import UserError
from kip_flax.runtime.precision import widest_dtype


def warm_up(options: KernelOptions, say: Callable[[str], None]) -> None:
    """Compiles the code of `make_kernel` ahead of its first call, for the same options.

    `say` gets a line if that takes long. 'xla' code is compiled later, with the step that calls it.
    """
    if not options.on_pixels:
        return
    if resolve(options.implementation) == "xla":
        say("the first step is compiled before it runs: up to a minute, unless kept from before")
    if resolve(options.implementation) == "cpu":
        from kip_flax.kernels.cpu.warm_up import warm_up as compile_ahead

        compile_ahead(say)


def make_kernel(spec: arch.Spec | KernelOptions, **options: Any) -> Kernel:
    """The infinite-width kernel of a network.

    Args:
        spec: description, from `architectures`, or `KernelOptions`, which contain one.
        options: with a description, the other fields of `KernelOptions` by name: w_std, b_std,
            parameterization, width, get, mirrored, implementation.

    Returns:
        `kernel(x1, x2)`: images (n1, H, W, C) and (n2, H, W, C) of one precision to (n1, n2) in it;
        it can be jitted and differentiated in both, and mapped (`jax.vmap`) unless it is 'cpu'.
        Pairs of nearly equal float32 images are computed in float64, on TPUs in pairs of float32,
        and by 'neural_tangents' as they are.

    Raises:
        TypeError: `KernelOptions` together with options.
        UserError: an unknown name or a missing package; on call, images of different shapes or
            types, of another type than float32 or float64, or too small for the pools, or an
            architecture that `plan.make_plan` refuses.
    """
    if not isinstance(spec, KernelOptions):
        return make_kernel(KernelOptions(spec, **options))
    if options:
        raise TypeError(f"{', '.join(options)}: set them in the KernelOptions that are passed.")
    chosen = spec
    implementation = resolve(chosen.implementation)
    if implementation == "neural_tangents":
        from kip_flax.kernels import reference

        of_images = reference.make_reference_kernel(chosen)
    else:
        of_images = _make_exact_kernel(chosen, implementation)

    if chosen.mirrored:
        of_images = mirrored_kernel(of_images, chosen)

    def kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
        check_images(x1, x2)
        return of_images(x1, x2)

    return kernel


def _make_exact_kernel(chosen: KernelOptions, implementation: str) -> Kernel:
    def kernel(x1: jax.Array, x2: jax.Array) -> jax.Array:
        if x2 is x1:
            return symmetric(pairs(x1, jax.lax.stop_gradient(x1), same=True))
        return pairs(x1, x2, same=False)

    def pairs(x1: jax.Array, x2: jax.Array, same: bool) -> jax.Array:
        x1, x2 = jnp.asarray(x1), jnp.asarray(x2)
        height, breadth, channels = x1.shape[1:]
        plan = make_plan(chosen, (height, breadth, channels))
        if not plan.convolutional:
            return dense_kernel(plan, chosen.get, x1, x2)
        if implementation == "cpu":
            from kip_flax.kernels.cpu.kernel import make_compiled_kernel

            k = make_compiled_kernel(plan, channels, chosen.get == "ntk")(x1, x2, same)
            if plan.rectified_head and widest_dtype() != np.float64:
                # JAX computes the head, in float32.
                k = near_duplicates.corrected(make_paired(plan, chosen.get), k, x1, x2)
            return k
        return make_xla_kernel(plan, chosen.get)(x1, x2)

    return kernel


def check_images(x1: jax.Array, x2: jax.Array) -> None:
    """Raises UserError unless both are images of one shape, and of one type that kernels take."""
    if x1.ndim != 4 or x2.ndim != 4 or x1.shape[1:] != x2.shape[1:]:
        raise UserError(
            f"a kernel takes images (n1, H, W, C) and (n2, H, W, C), not {x1.shape} and {x2.shape}."
        )
    if not (len(x1) and len(x2)):
        raise UserError(
            f"a kernel takes one image or more of each set, not {len(x1)} and {len(x2)}."
        )
    if not {x1.dtype.name, x2.dtype.name} <= {"float32", "float64"}:
        raise UserError(
            f"a kernel takes images of float32 or float64, not {x1.dtype} and {x2.dtype}: "
            f"`preprocess.apply` makes them of pixels."
        )
    # Without float64 in JAX, NumPy's float64 becomes float32 too.
    one, other = (jax.dtypes.canonicalize_dtype(x.dtype) for x in (x1, x2))
    if one != other:
        raise UserError(
            f"a kernel takes images of one type, not {one} and {other}: cast the former, for "
            f"example x.astype('{other}')."
        )
