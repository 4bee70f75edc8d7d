"""The convolution of finite networks, with gradients that a CPU computes fast in compiled loops.

XLA has a fast convolution for CPUs (jaxlib 0.10.2). It takes images as (n, H, W, C) and kernels as
(H, W, in, out), and nothing else. Outside of loops XLA brings others to this form. In a loop it
takes a far slower one (docs/performance.md), and the gradients that JAX derives have other forms.

Images, kernel and outputs of a convolution are bound by three functions: each is linear in two of
them and has the shape of the third. The gradients of each are the other two. So three convolutions
of the fast form are enough for gradients of every order. Forward mode (`jax.jvp`) is not defined on
a CPU.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

Pads = tuple[tuple[int, int], ...]  # (before, after) of rows and of columns.
_FORM = ("NHWC", "HWIO", "NHWC")


class _Geometry(NamedTuple):
    """How a square kernel slides over images (n, height, width, in)."""

    sides: tuple[int, int]
    size: int
    stride: int
    pads: Pads

    @property
    def reach(self) -> tuple[int, int]:
        """Rows and columns from the first to the last place of the kernel."""
        lengths = zip(self.sides, self.pads, strict=True)
        rows, columns = (side + sum(pads) - self.size for side, pads in lengths)
        return rows // self.stride * self.stride, columns // self.stride * self.stride


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int | None = None
) -> jax.Array:
    """Cross-correlation (n, H', W', out) of x (n, H, W, in) with kernel (size, size, in, out).

    `padding` zeros are added on every side. None pads like 'SAME' in Flax and neural_tangents:
    H' = ceil(H / stride), and an odd zero goes to the end.
    """
    height, width = x.shape[1:3]
    size = kernel.shape[0]
    pads = tuple(_padding(side, size, stride, padding) for side in (height, width))
    common = jnp.result_type(x, kernel)  # Matrix products promote types; XLA's function does not.
    x, kernel = x.astype(common), kernel.astype(common)
    if jax.default_backend() != "cpu":
        return _xla(x, kernel, pads, stride=stride)
    return _outputs(x, kernel, _Geometry((height, width), size, stride, pads))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _outputs(x: jax.Array, kernel: jax.Array, geometry: _Geometry) -> jax.Array:
    """The convolution itself: (n, H', W', out)."""
    return _xla(x, kernel, geometry.pads, stride=geometry.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _images(outputs: jax.Array, kernel: jax.Array, geometry: _Geometry) -> jax.Array:
    """The gradient (n, H, W, in) of sum(outputs * convolution) in the images."""
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    sides = zip(geometry.sides, geometry.pads, geometry.reach, strict=True)
    last = geometry.size - 1
    pads = tuple((last - before, side - 1 + before - far) for side, (before, _), far in sides)
    return _xla(outputs, turned, pads, image_dilation=geometry.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel(x: jax.Array, outputs: jax.Array, geometry: _Geometry) -> jax.Array:
    """The gradient (size, size, in, out) of sum(outputs * convolution) in the kernel.

    The sum over images is one over channels where these change places.
    """
    sides = zip(geometry.sides, geometry.pads, geometry.reach, strict=True)
    pads = tuple((before, geometry.size - side - before + far) for side, (before, _), far in sides)
    swapped = x.transpose(3, 1, 2, 0), outputs.transpose(1, 2, 0, 3)
    return _xla(*swapped, pads, kernel_dilation=geometry.stride).transpose(1, 2, 0, 3)


def _keep(function: jax.custom_vjp, a: jax.Array, b: jax.Array, geometry: _Geometry) -> tuple:
    return function(a, b, geometry), (a, b)


def _of_outputs(geometry: _Geometry, kept: tuple, outputs: jax.Array) -> tuple:
    x, kernel = kept
    return _images(outputs, kernel, geometry), _kernel(x, outputs, geometry)


def _of_images(geometry: _Geometry, kept: tuple, x: jax.Array) -> tuple:
    outputs, kernel = kept
    return _outputs(x, kernel, geometry), _kernel(x, outputs, geometry)


def _of_kernel(geometry: _Geometry, kept: tuple, kernel: jax.Array) -> tuple:
    x, outputs = kept
    return _images(outputs, kernel, geometry), _outputs(x, kernel, geometry)


_outputs.defvjp(functools.partial(_keep, _outputs), _of_outputs)
_images.defvjp(functools.partial(_keep, _images), _of_images)
_kernel.defvjp(functools.partial(_keep, _kernel), _of_kernel)


def _xla(
    x: jax.Array,
    kernel: jax.Array,
    pads: Pads,
    stride: int = 1,
    image_dilation: int = 1,
    kernel_dilation: int = 1,
) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        (image_dilation, image_dilation),
        (kernel_dilation, kernel_dilation),
        dimension_numbers=_FORM,
    )


def _padding(side: int, size: int, stride: int, padding: int | None) -> tuple[int, int]:
    if padding is not None:
        return padding, padding
    total = max(0, (-(-side // stride) - 1) * stride + size - side)
    return total // 2, total - total // 2
