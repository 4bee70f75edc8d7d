"""Networks as data: a tuple of layer records that every other room reads.

The same description becomes an infinitely wide kernel (`kernels`), and a neural_tangents network
(`kernels.reference`). Adding an architecture is one function here and one entry in
`ARCHITECTURES`. Sources: Nguyen et al., NeurIPS 2021, section B (Conv, ConvNet, Myrtle); Shankar et
al., "Neural Kernels Without Tangents", ICML 2020 (Myrtle).
"""

from collections.abc import Callable
from dataclasses import dataclass

from kip_flax.runtime.errors import UserError


@dataclass(frozen=True)
class Conv:
    """`size` x `size` convolution, zero ('SAME') padding; `size` is odd.

    With `stride` s an image of n rows gives ceil(n / s), as in Flax and neural_tangents.
    """

    size: int = 3
    stride: int = 1


@dataclass(frozen=True)
class Relu:
    """Pointwise max(0, x)."""


@dataclass(frozen=True)
class AvgPool:
    """Average over disjoint `size` x `size` windows; rows and columns left over are dropped."""

    size: int = 2


@dataclass(frozen=True)
class GlobalAvgPool:
    """Average over all pixels; what follows sees one vector of channels."""


@dataclass(frozen=True)
class Flatten:
    """Pixels and channels become one vector."""


@dataclass(frozen=True)
class Dense:
    """Fully connected layer. The last one of a network is the readout to the classes."""


Layer = Conv | Relu | AvgPool | GlobalAvgPool | Flatten | Dense
Spec = tuple[Layer, ...]

_MYRTLE_BLOCKS = {5: (1, 1, 1), 7: (1, 2, 2), 10: (2, 3, 3)}


def fc(depth: int = 1) -> Spec:
    """Fully connected network: flatten, `depth` x (dense, ReLU), dense."""
    _check_depth("fc", depth)
    return (Flatten(), *((Dense(), Relu()) * depth), Dense())


def conv(depth: int = 3) -> Spec:
    """Convolutions without pooling: `depth` x (conv 3x3, ReLU), flatten, dense."""
    _check_depth("conv", depth)
    return (*((Conv(), Relu()) * depth), Flatten(), Dense())


def convnet(depth: int = 3, prepend_conv: bool = True) -> Spec:
    """ConvNet: `depth` x (conv 3x3, ReLU, 2x2 average pooling), flatten, dense.

    Args:
        depth: number of pooled blocks.
        prepend_conv: begin with one more (conv, ReLU), as the NeurIPS 2021 paper does; without it
            this is the ConvNet of Dataset Condensation (Zhao et al., ICLR 2021), less its
            normalisation.
    """
    _check_depth("convnet", depth)
    head = (Conv(), Relu()) if prepend_conv else ()
    return (*head, *((Conv(), Relu(), AvgPool()) * depth), Flatten(), Dense())


def convnet_plain(depth: int = 3) -> Spec:
    """`convnet` without the prepended layer ("ConvNet3" at depth 3)."""
    return convnet(depth, prepend_conv=False)


def myrtle(depth: int = 10) -> Spec:
    """Myrtle network with global average pooling; `depth` is 5, 7 or 10."""
    if depth not in _MYRTLE_BLOCKS:
        raise UserError(f"myrtle has depth 5, 7 or 10, not {depth}: set kernel.depth to one.")
    blocks = [(Conv(), Relu()) * convs for convs in _MYRTLE_BLOCKS[depth]]
    body = (*blocks[0], AvgPool(), *blocks[1], AvgPool(), *blocks[2])
    return (Conv(), Relu(), *body, GlobalAvgPool(), Dense())


ARCHITECTURES: dict[str, Callable[[int], Spec]] = {
    "fc": fc,
    "conv": conv,
    "convnet": convnet,
    "convnet_plain": convnet_plain,
    "myrtle": myrtle,
}


def build(name: str, depth: int) -> Spec:
    """The description called `name` at `depth`; UserError for an unknown name or depth."""
    if name not in ARCHITECTURES:
        allowed = ", ".join(ARCHITECTURES)
        raise UserError(f"unknown architecture {name!r}: kernel.architecture is one of {allowed}.")
    return ARCHITECTURES[name](depth)


def spatial_sizes(spec: Spec, height: int, width: int) -> list[tuple[int, int]]:
    """Pixels (rows, columns) that enter each layer of `spec`; (1, 1) once there are none left.

    Raises:
        UserError: the image is too small for the pools.
    """
    sizes, size = [], (height, width)
    for layer in spec:
        sizes.append(size)
        if isinstance(layer, AvgPool):
            size = (size[0] // layer.size, size[1] // layer.size)
        elif isinstance(layer, Conv):
            size = (-(-size[0] // layer.stride), -(-size[1] // layer.stride))
        elif isinstance(layer, Flatten | GlobalAvgPool):
            size = (1, 1)
        if min(size) < 1:
            raise UserError(
                f"images of {height}x{width} pixels are too small for {_pools(spec)} pooling "
                f"layers: take larger images or a smaller kernel.depth."
            )
    return sizes


def _pools(spec: Spec) -> int:
    return sum(isinstance(layer, AvgPool) for layer in spec)


def _check_depth(name: str, depth: int) -> None:
    if depth < 1:
        raise UserError(f"{name} needs a depth of at least 1, not {depth}: set kernel.depth.")
