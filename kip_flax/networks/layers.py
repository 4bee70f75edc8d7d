"""Layers of finite networks, as Flax nnx modules and plain functions of images (n, H, W, C)."""

import jax
import jax.numpy as jnp
from flax import nnx

from kip_flax.networks.convolution import convolve

_EPSILON = 1e-5


class Affine(nnx.Module):
    """Dense layer (n, in) -> (n, out), or convolution (n, H, W, in) -> (n, H', W', out).

    Args:
        kernel: (in, out), or (size, size, in, out).
        bias: (out,), or None for a layer without one.
        kernel_scale, bias_scale: factors of kernel and bias: 1 except in the NTK parameterisation.
        stride, padding: of a convolution, see `convolution.convolve`.
    """

    def __init__(
        self,
        kernel: jax.Array,
        bias: jax.Array | None = None,
        kernel_scale: float = 1.0,
        bias_scale: float = 1.0,
        stride: int = 1,
        padding: int | None = None,
    ):
        self.kernel = nnx.Param(kernel)
        self.bias = None if bias is None else nnx.Param(bias)
        self.kernel_scale, self.bias_scale = kernel_scale, bias_scale
        self.stride, self.padding = stride, padding

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        y = x @ kernel if kernel.ndim == 2 else convolve(x, kernel, self.stride, self.padding)
        y = self.kernel_scale * y  # The same as scaling the kernel.
        return y if self.bias is None else y + self.bias_scale * self.bias[...]


def instance_norm(channels: int, rngs: nnx.Rngs) -> nnx.InstanceNorm:
    """A layer that normalises every image by channel (mean 0, variance 1), scales and shifts it."""
    return nnx.InstanceNorm(channels, epsilon=_EPSILON, rngs=rngs)


def batch_norm(channels: int, rngs: nnx.Rngs, momentum: float = 0.9) -> nnx.BatchNorm:
    """A layer that normalises a batch by channel (mean 0, variance 1), scales and shifts it.

    Evaluation uses running averages, of which each batch keeps the share `momentum`.
    """
    return nnx.BatchNorm(channels, epsilon=_EPSILON, momentum=momentum, rngs=rngs)


def avg_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Mean over disjoint `size` x `size` windows; rows and columns left over are dropped."""
    return jnp.mean(_windows(x, size), axis=(2, 4))


def max_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Maximum over disjoint `size` x `size` windows; rows and columns left over are dropped."""
    return jnp.max(_windows(x, size), axis=(2, 4))


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Mean over all pixels: (n, H, W, C) -> (n, C)."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """One vector per image: (n, ...) -> (n, all)."""
    return x.reshape(len(x), -1)


def _windows(x: jax.Array, size: int) -> jax.Array:
    n, height, width, channels = x.shape
    rows, columns = height // size, width // size
    x = x[:, : rows * size, : columns * size]
    return x.reshape(n, rows, size, columns, size, channels)
