"""Layers of finite networks, as Flax nnx modules and plain functions of images (n, H, W, C).

On a CPU a convolution is a sum of matrix products, one for each place in the window, or a single
product where that is faster. In a compiled loop that is 30 times faster than XLA's convolution with
its gradient (two cores, jax 0.10.2), and it stays a matrix product when the weights of several
networks are stacked by `jax.vmap`. Elsewhere XLA's convolution is used.
"""

import jax
import jax.numpy as jnp
from flax import nnx

_EPSILON = 1e-5
_FEW_CHANNELS = 16
_CACHED = 3_000_000  # Numbers that fit a CPU's cache.


class Affine(nnx.Module):
    """Dense layer (n, in) -> (n, out), or convolution (n, H, W, in) -> (n, H', W', out).

    Args:
        kernel: (in, out), or (size, size, in, out).
        bias: (out,), or None for a layer without one.
        kernel_scale, bias_scale: factors of kernel and bias: 1 except in the NTK parameterisation.
        stride, padding: of a convolution, see `convolve`.
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


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int | None = None
) -> jax.Array:
    """Cross-correlation (n, H', W', out) of x (n, H, W, in) with kernel (size, size, in, out).

    `padding` zeros are added on every side. None pads like 'SAME' in Flax and neural_tangents:
    H' = ceil(H / stride), and an odd zero goes to the end.
    """
    size, _, channels, out = kernel.shape
    pads = [_padding(side, size, stride, padding) for side in x.shape[1:3]]
    if jax.default_backend() != "cpu":
        common = jnp.result_type(x, kernel)  # Matrix products promote types; this does not.
        x, kernel = x.astype(common), kernel.astype(common)
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = ((side - size) // stride * stride + 1 for side in x.shape[1:3])
    places = [
        x[:, i : i + rows : stride, j : j + columns : stride]
        for i in range(size)
        for j in range(size)
    ]
    # With few channels, products by place are bound by writing; in a cache one product is fastest.
    if channels < _FEW_CHANNELS or size**2 * x.size <= _CACHED:
        return jnp.concatenate(places, axis=-1) @ kernel.reshape(-1, out)
    weights = kernel.reshape(-1, channels, out)
    total = places[0] @ weights[0]
    for place, weight in zip(places[1:], weights[1:], strict=True):
        total += place @ weight
    return total


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


def _padding(side: int, size: int, stride: int, padding: int | None) -> tuple[int, int]:
    if padding is not None:
        return padding, padding
    total = max(0, (-(-side // stride) - 1) * stride + size - side)
    return total // 2, total - total // 2
