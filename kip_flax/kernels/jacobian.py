"""The kernel and the gradient of each entry in its support image, for Gauss-Newton steps.

An entry K(x_t, x_s) depends on one support image only. One backward pass therefore gives the
gradients of all entries of a target, at the same cost whether they are kept apart or added up.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp

from kip_flax.kernels.build import check_images, make_kernel
from kip_flax.kernels.mirrored import check_mirrored, with_mirror_images
from kip_flax.kernels.options import Kernel, KernelOptions, resolve
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.xla.pair_gradients import make_xla_jacobian

Jacobian = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

_TARGETS = 16  # Targets differentiated at once where a kernel has no code for its pairs.
_MOST = 2**28  # Most bytes of gradients per compiled call; as it ends they are in memory twice.


def make_jacobian(options: KernelOptions) -> Jacobian:
    """The kernel of `kernels.make_kernel(options)` with its gradients.

    Returns:
        `jacobian(x_t, x_s)`: images (T, H, W, C) and (S, H, W, C) to the kernel (T, S) and `dk`
        (S, T, H W C), where `dk[s, t]` is the gradient of entry (t, s) in the pixels of x_s[s].
        It can be jitted. In float32, `dk` takes 4 S T H W C bytes. Pixels and channels are one
        axis: a TPU pads the last axis to 128, 40 times as much memory where that has 3 channels.

    Raises:
        UserError: the package of the implementation is missing; on call, as of the kernel.
    """
    if options.mirrored:
        return _make_mirrored(options)
    implementation = resolve(options.implementation)
    compiled = implementation == "cpu"
    kernel = make_kernel(options)

    def jacobian(x_t: jax.Array, x_s: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_t, x_s = jnp.asarray(x_t), jnp.asarray(x_s)
        check_images(x_t, x_s)
        shape = (x_s.shape[1], x_s.shape[2], x_s.shape[3])
        plan = make_plan(options, shape)
        if compiled and plan.convolutional and not plan.rectified_head:
            from kip_flax.kernels.cpu.kernel import make_compiled_jacobian

            of_pairs = make_compiled_jacobian(plan, shape[-1], options.get == "ntk")
            k, dk = _piece_by_piece(of_pairs, x_t, x_s)
            return k, dk.reshape(*dk.shape[:2], -1)
        if implementation == "xla" and plan.convolutional:
            return make_xla_jacobian(plan, options.get)(x_t, x_s)
        one_by_one = compiled and plan.convolutional  # The compiled kernel has no batching rule.
        return _target_by_target(kernel, x_t, x_s, None if one_by_one else _TARGETS)

    return jacobian


def _make_mirrored(options: KernelOptions) -> Jacobian:
    """By mirrored targets, so that no gradient is to be turned: K(m x_t, x_s) = K(x_t, m x_s)."""
    plain = make_jacobian(replace(options, mirrored=False))

    def jacobian(x_t: jax.Array, x_s: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_t, x_s = jnp.asarray(x_t), jnp.asarray(x_s)
        check_images(x_t, x_s)
        check_mirrored(options, (x_s.shape[1], x_s.shape[2], x_s.shape[3]))
        return _piece_by_piece(mean, with_mirror_images(x_t), x_s)

    def mean(both: jax.Array, x_s: jax.Array) -> tuple[jax.Array, jax.Array]:
        k, dk = plain(both, x_s)
        half = len(both) // 2
        return (k[:half] + k[half:]) / 2, (dk[:, :half] + dk[:, half:]) / 2

    return jacobian


def warm_up(options: KernelOptions, say: Callable[[str], None]) -> None:
    """Compiles the code of `make_jacobian` ahead of its first call, for the same options.

    `say` gets a line if that takes long.
    """
    if options.on_pixels and resolve(options.implementation) == "cpu":
        from kip_flax.kernels.cpu.warm_up import warm_up_jacobian

        warm_up_jacobian(say)


def _piece_by_piece(
    jacobian: Jacobian, x_t: jax.Array, x_s: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`jacobian(x_t, x_s)`, computed for as many support images at once as `_MOST` allows."""
    size, most = len(x_s), _MOST // max(1, x_t.size * x_s.dtype.itemsize)
    count = max(n for n in range(1, size + 1) if size % n == 0 and n <= max(1, most))
    if count == size:
        return jacobian(x_t, x_s)
    pieces = x_s.reshape(size // count, count, *x_s.shape[1:])
    k, dk = jax.lax.map(lambda piece: jacobian(x_t, piece), pieces)
    return jnp.moveaxis(k, 1, 0).reshape(-1, size), dk.reshape(size, *dk.shape[2:])


def _target_by_target(
    kernel: Kernel,
    x_t: jax.Array,
    x_s: jax.Array,
    at_once: int | None,
) -> tuple[jax.Array, jax.Array]:
    def of_target(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        def total(images: jax.Array) -> tuple[jax.Array, jax.Array]:
            row = kernel(x[None], images)[0]
            return jnp.sum(row), row

        gradients, row = jax.grad(total, has_aux=True)(x_s)
        return row, gradients.reshape(len(x_s), -1)

    rows, gradients = jax.lax.map(of_target, x_t, batch_size=at_once)
    return rows, jnp.swapaxes(gradients, 0, 1)
