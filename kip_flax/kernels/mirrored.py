"""The kernel that does not tell an image from its mirror image.

A network whose output is the mean over an image and its mirror image has the mean of four kernels,
K(x1, x2), K(x1, m x2), K(m x1, x2) and K(m x1, m x2), m: mirrored left to right. Where the layers
treat both sides alike, K(m x1, m x2) = K(x1, x2), and two of them are enough. See Li et al. 2019
(arXiv 1911.00809) on augmentation in the kernel.
"""

import itertools

import jax
import jax.numpy as jnp

from kip_flax.kernels.options import Kernel, KernelOptions
from kip_flax.kernels.plan import make_plan
from kip_flax.kernels.symmetry import symmetric
from kip_flax.runtime.errors import UserError


def mirrored_kernel(kernel: Kernel, options: KernelOptions) -> Kernel:
    """The mean of `kernel(x1, x2)`, of `options`, and `kernel(x1, mirrored x2)`.

    Raises:
        UserError: on call, as `check_mirrored`.
    """

    def mean(x1: jax.Array, x2: jax.Array) -> jax.Array:
        check_mirrored(options, (x2.shape[1], x2.shape[2], x2.shape[3]))
        if x2 is x1:
            return symmetric(of_two(x1, jax.lax.stop_gradient(x1)))
        return of_two(x1, x2)

    def of_two(x1: jax.Array, x2: jax.Array) -> jax.Array:
        k = kernel(x1, with_mirror_images(x2))
        return (k[:, : len(x2)] + k[:, len(x2) :]) / 2

    return mean


def with_mirror_images(x: jax.Array) -> jax.Array:
    """Images (n, H, W, C), then their mirror images: (2 n, H, W, C)."""
    return jnp.concatenate([x, x[:, :, ::-1]])


def check_mirrored(options: KernelOptions, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError if a layer does not treat left and right alike, as a pool of odd rows."""
    levels = make_plan(options, image_shape).levels
    for level, after in itertools.pairwise(levels):
        end = level.start[1] + (after.width - 1) * level.step + level.pool
        if level.start[1] != level.width - end:
            raise UserError(
                f"kernel.mirrored needs layers that treat left and right alike, and one makes "
                f"{after.width} columns of {level.width}: take kernel.mirrored=False, another "
                f"kernel.depth or kernel.architecture, or images of another width."
            )
