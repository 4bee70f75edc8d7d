"""The networks that data-set distillation is evaluated on, as Flax nnx modules.

They are those of *Dataset Condensation* (Zhao, Mopuri, Bilen, ICLR 2021) and DSA (ICML 2021), whose
repository (VICO-UoE/DatasetCondensation, networks.py) defines them for 32x32 colour and 28x28 grey
images: MLP, ConvNet (Gidaris and Komodakis, CVPR 2018), LeNet, AlexNet, VGG-11 and ResNet-18.
Weights are drawn as PyTorch draws them by default. The first convolution pads 28x28 images to 32x32
where that of the original does.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from kip_flax.networks import layers
from kip_flax.networks.layers import (
    avg_pool,
    batch_norm,
    flatten,
    global_avg_pool,
    instance_norm,
    max_pool,
)
from kip_flax.runtime.errors import UserError

Shape = tuple[int, int, int]
Layer = Callable[[jax.Array], jax.Array]
Norm = Callable[[int, nnx.Rngs], Layer]

_VGG11: tuple[int | None, ...] = (64, None, 128, None, 256, 256, None, 512, 512, None, 512, 512)


def mlp(shape: Shape, classes: int, rngs: nnx.Rngs, width: int = 128) -> nnx.Sequential:
    """MLP with two hidden layers of `width` units."""
    first = _affine(rngs, math.prod(shape), width)
    second, last = _affine(rngs, width, width), _affine(rngs, width, classes)
    return nnx.Sequential(flatten, first, jax.nn.relu, second, jax.nn.relu, last)


def convnet(
    shape: Shape, classes: int, rngs: nnx.Rngs, width: int = 128, depth: int = 3
) -> nnx.Sequential:
    """ConvNet: `depth` blocks of convolution, instance norm, ReLU and average pooling."""
    made: list[Layer] = []
    channels = shape[2]
    for block in range(depth):
        conv = _affine(rngs, channels, width, 3, padding=_first_padding(shape, block, 1))
        made += [conv, instance_norm(width, rngs), jax.nn.relu, avg_pool]
        channels = width
    return _with_readout(made, shape, classes, rngs)


def lenet(shape: Shape, classes: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """LeNet-5 with ReLU and maximum pooling."""
    first = _affine(rngs, shape[2], 6, 5, padding=_first_padding(shape, 0, 0))
    second = _affine(rngs, 6, 16, 5, padding=0)
    made: list[Layer] = [first, jax.nn.relu, max_pool, second, jax.nn.relu, max_pool, flatten]
    units = _outputs(made, shape)
    for out in (120, 84):
        made += [_affine(rngs, units, out), jax.nn.relu]
        units = out
    return nnx.Sequential(*made, _affine(rngs, units, classes))


def alexnet(shape: Shape, classes: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """AlexNet for small images: five convolutions, one dense layer, no normalisation."""
    made: list[Layer] = []
    channels = shape[2]
    plan = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
    for i, (out, size, pooled) in enumerate(plan):
        padding = _first_padding(shape, i, size // 2)
        made += [_affine(rngs, channels, out, size, padding=padding), jax.nn.relu]
        made += [max_pool] if pooled else []
        channels = out
    return _with_readout(made, shape, classes, rngs)


def vgg11(shape: Shape, classes: int, rngs: nnx.Rngs, norm: Norm) -> nnx.Sequential:
    """VGG-11 with a normalisation after every convolution and one dense layer."""
    made: list[Layer] = []
    channels = shape[2]
    for i, out in enumerate((*_VGG11, None)):
        if out is None:
            made.append(max_pool)
            continue
        conv = _affine(rngs, channels, out, 3, padding=_first_padding(shape, i, 1))
        made += [conv, norm(out, rngs), jax.nn.relu]
        channels = out
    return _with_readout(made, shape, classes, rngs)


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where shapes change."""

    def __init__(self, channels: int, out: int, stride: int, norm: Norm, rngs: nnx.Rngs):
        conv = functools.partial(_affine, rngs, bias=False)
        self.main = nnx.Sequential(
            *(conv(channels, out, 3, stride=stride, padding=1), norm(out, rngs), jax.nn.relu),
            *(conv(out, out, 3, padding=1), norm(out, rngs)),
        )
        shortcut: list[Layer] = []
        if stride != 1 or channels != out:
            shortcut = [conv(channels, out, 1, stride=stride, padding=0), norm(out, rngs)]
        self.shortcut = nnx.Sequential(*shortcut)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.nn.relu(self.main(x) + self.shortcut(x))


def resnet18(shape: Shape, classes: int, rngs: nnx.Rngs, norm: Norm) -> nnx.Sequential:
    """ResNet-18 for small images: begins with a 3x3 convolution of stride 1, without pooling."""
    stem = _affine(rngs, shape[2], 64, 3, padding=1, bias=False)
    made: list[Layer] = [stem, norm(64, rngs), jax.nn.relu]
    channels = 64
    for out, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        made += [
            ResidualBlock(channels, out, stride, norm, rngs),
            ResidualBlock(out, out, 1, norm, rngs),
        ]
        channels = out
    return _with_readout([*made, global_avg_pool], shape, classes, rngs)


def _affine(
    rngs: nnx.Rngs,
    channels: int,
    out: int,
    size: int | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    bias: bool = True,
) -> layers.Affine:
    """Dense layer, or convolution with a `size`; all uniform in +-1 / sqrt(fan-in)."""
    shape = (channels, out) if size is None else (size, size, channels, out)
    reach = 1 / math.sqrt(math.prod(shape[:-1]))

    def draw(shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(rngs.params(), shape, jnp.float32, -reach, reach)

    kernel = draw(shape)
    return layers.Affine(kernel, draw((out,)) if bias else None, stride=stride, padding=padding)


def _first_padding(shape: Shape, index: int, padding: int) -> int:
    """`padding`, and two more where the first convolution pads 28x28 images to 32x32."""
    return padding + 2 if index == 0 and shape[:2] == (28, 28) else padding


def _with_readout(made: list[Layer], shape: Shape, classes: int, rngs: nnx.Rngs) -> nnx.Sequential:
    made = [*made, flatten]
    return nnx.Sequential(*made, _affine(rngs, _outputs(made, shape), classes))


def _outputs(made: list[Layer], shape: Shape) -> int:
    body = nnx.Sequential(*made)
    body.eval()  # No running average may change here.
    return nnx.eval_shape(lambda: body(jnp.zeros((1, *shape), jnp.float32))).shape[1]


Build = Callable[[Shape, int, nnx.Rngs], nnx.Sequential]
# How to make each network, and the smallest side of an image that leaves pixels for all layers.
_ZOO: dict[str, tuple[Build, int]] = {
    "mlp": (mlp, 1),
    "convnet_in": (convnet, 8),
    "convnet2_in": (functools.partial(convnet, depth=2), 4),
    "lenet": (lenet, 16),
    "alexnet": (alexnet, 8),
    "vgg11_in": (functools.partial(vgg11, norm=instance_norm), 32),
    "vgg11_bn": (functools.partial(vgg11, norm=batch_norm), 32),
    "resnet18_in": (functools.partial(resnet18, norm=instance_norm), 9),
    "resnet18_bn": (functools.partial(resnet18, norm=batch_norm), 1),
}
ZOO: tuple[str, ...] = tuple(_ZOO)


def make_network(name: str, shape: Shape, classes: int, rngs: nnx.Rngs) -> nnx.Sequential:
    """The network `name` of `ZOO` for images of `shape` (H, W, C).

    Raises:
        UserError: unknown name, or images too small for it.
    """
    if name not in _ZOO:
        raise UserError(f"unknown network {name!r}: take one of {', '.join(ZOO)}.")
    build, smallest = _ZOO[name]
    side = 32 if shape[:2] == (28, 28) else min(shape[:2])
    if side < smallest:
        fit = ", ".join(other for other, (_, least) in _ZOO.items() if side >= least)
        raise UserError(
            f"images of {shape[0]}x{shape[1]} pixels are too small for {name}, which needs "
            f"{smallest}x{smallest}: take one of {fit}."
        )
    return build(shape, classes, rngs)
