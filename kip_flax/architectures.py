"""Networks as data: a tuple of layer records that every other package reads.

A description becomes an infinitely wide kernel (`kernels`), a finite network (`networks.build`) or
a neural_tangents network (`kernels.reference`). To add an architecture, write one function here and
one entry in `ARCHITECTURES`, or a module of your own (see `find`). The functions raise UserError
for a depth that does not exist. Sources: Nguyen et al., NeurIPS 2021, section B (Conv, ConvNet,
Myrtle); Shankar et al., "Neural Kernels Without Tangents", ICML 2020 (Myrtle).
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from kip_flax.runtime import plugins
from kip_flax.runtime.errors import UserError


@dataclass(frozen=True)
class Conv:
    """`size` x `size` convolution, zero ('SAME') padding; `size` is odd.

    With `stride` s, n rows become ceil(n / s), as in Flax and neural_tangents.
    """

    size: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        if self.size % 2 == 0 or self.size < 1 or self.stride < 1:
            raise UserError(
                f"Conv(size={self.size}, stride={self.stride}): sizes are odd and above 0, strides "
                f"above 0."
            )


@dataclass(frozen=True)
class Relu:
    """Pointwise max(0, x)."""


@dataclass(frozen=True)
class AvgPool:
    """Average over disjoint `size` x `size` windows; rows and columns left over are dropped."""

    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"AvgPool(size={self.size}): sizes are above 0.")


@dataclass(frozen=True)
class GlobalAvgPool:
    """Average over all pixels; one vector of channels is left."""


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
        prepend_conv: begin with one more (conv, ReLU), as in the NeurIPS 2021 paper; without it
            this is the ConvNet of Dataset Condensation (Zhao et al., ICLR 2021) without its
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


@dataclass(frozen=True)
class Architecture:
    """A family of descriptions.

    Attributes:
        build: depth -> description; raises UserError for a depth that does not exist.
        published: depth -> the name in the files of distilled sets.
    """

    build: Callable[[int], Spec]
    published: Callable[[int], str]


# ConvNet is the paper's, with 3 blocks after a prepended layer; ConvNet3 lacks that layer. Other
# depths of `convnet` have no published name.
ARCHITECTURES: dict[str, Architecture] = {
    "fc": Architecture(fc, "FC{}".format),
    "conv": Architecture(conv, "Conv{}".format),
    "convnet": Architecture(
        convnet, lambda depth: "ConvNet" if depth == 3 else f"ConvNetPre{depth}"
    ),
    "convnet_plain": Architecture(convnet_plain, "ConvNet{}".format),
    "myrtle": Architecture(myrtle, "Myrtle{}".format),
}


def find(name: str) -> Architecture:
    """The architecture called `name`: one of `ARCHITECTURES`, or a module by its dotted name.

    A module has `build(depth) -> Spec`, and may have `published_name(depth) -> str` of letters and
    digits. Without it, files are named after the module: TinyNet3 for `mine.tiny_net` at depth 3.

    Raises:
        UserError: there is no such architecture.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    module = plugins.find_foreign("kernel.architecture", name, ARCHITECTURES, ("build",))
    return Architecture(
        module.build, getattr(module, "published_name", functools.partial(_name_of_module, name))
    )


def build(name: str, depth: int) -> Spec:
    """The description of the architecture `name` (see `find`) at `depth`.

    Raises:
        UserError: there is no such architecture, or not at this depth.
    """
    return find(name).build(depth)


def published_name(name: str, depth: int) -> str:
    """The name in the files of distilled sets: FC1, Conv3, ConvNet, ConvNet3, Myrtle10.

    An architecture that cannot be found is named after its module.
    """
    try:
        published = find(name).published
    except (UserError, ImportError):
        published = functools.partial(_name_of_module, name)
    return published(depth)


def _name_of_module(name: str, depth: int) -> str:
    words = re.findall("[A-Za-z0-9]+", name.rpartition(".")[2])
    return "".join(word[0].upper() + word[1:] for word in words) + str(depth)


def spatial_sizes(spec: Spec, height: int, width: int) -> list[tuple[int, int]]:
    """Rows and columns that enter each layer of `spec`; (1, 1) after flattening or global pooling.

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
