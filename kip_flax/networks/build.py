"""Finite networks of any width from their descriptions, as Flax nnx modules.

`kernels` computes the infinite-width limit of these modules: weights and biases are drawn as in
neural_tangents, in the same two parameterisations (Sohl-Dickstein et al. 2020, arXiv 2001.07301).
The networks that others evaluate on are in `zoo`.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from kip_flax import architectures as arch
from kip_flax.networks import layers
from kip_flax.runtime.errors import UserError

Make = Callable[[nnx.Rngs], nnx.Sequential]
Tree = Any  # A pytree of arrays.


@dataclass(frozen=True)
class Weights:
    """How the weights of a network are drawn.

    Attributes:
        w_std, b_std: as in `kernels.KernelOptions`, for every layer.
        parameterization: 'standard' draws weights of variance w_std^2 / fan-in and biases of
            variance b_std^2; 'ntk' draws both of variance 1 and scales them in the forward pass.
    """

    w_std: float = 2**0.5
    b_std: float = 0.1
    parameterization: str = "standard"

    def affine(self, rngs: nnx.Rngs, shape: tuple[int, ...], stride: int = 1) -> layers.Affine:
        """A dense layer (in, out), or a convolution (size, size, in, out)."""
        scale = self.w_std / math.sqrt(math.prod(shape[:-1]))
        kernel = jax.random.normal(rngs.params(), shape, jnp.float32)
        bias = jax.random.normal(rngs.params(), shape[-1:], jnp.float32)
        if self.parameterization == "ntk":
            return layers.Affine(kernel, bias, scale, self.b_std, stride=stride)
        return layers.Affine(scale * kernel, self.b_std * bias, stride=stride)


class Blocks(TypedDict, total=False):
    """Parts of a finite network that an infinitely wide one lacks.

    Attributes:
        normalization: one of `NORMALIZATIONS`, placed before every convolution but the first, as in
            FRePo (Zhou, Nezhadarya, Ba, NeurIPS 2022): 'none', 'batch' (momentum 0.1) or
            'instance'. Default 'none'.
        growth: factor by which every average pooling multiplies the channels of later layers; with
            2, 128 becomes 128, 256, 512. Default 1.
    """

    normalization: str
    growth: int


NORMALIZATIONS: dict[str, Callable[[int, nnx.Rngs], nnx.Module] | None] = {
    "none": None,
    "batch": functools.partial(layers.batch_norm, momentum=0.1),
    "instance": layers.instance_norm,
}


def make_network(
    spec: arch.Spec,
    image_shape: tuple[int, int, int],
    num_classes: int,
    rngs: nnx.Rngs,
    width: int = 1024,
    weights: Weights = Weights(),
    **blocks: Unpack[Blocks],
) -> nnx.Sequential:
    """A random network as `spec` describes it: images (n, H, W, C) to outputs (n, num_classes).

    Args:
        spec: description, from `architectures`.
        image_shape: (H, W, C).
        num_classes: outputs of the last dense layer.
        rngs: random numbers for the weights.
        width: channels or units of the hidden layers; with growth, of the first ones.
        weights: how weights and biases are drawn.
        blocks: normalisation and growth, see `Blocks`.

    Raises:
        UserError: the images are too small for the pools, or the last layer is not Dense.
    """
    if not isinstance(spec[-1], arch.Dense):
        raise UserError(
            f"the last layer of a network is {type(spec[-1]).__name__}: end with a Dense layer, "
            f"whose outputs are the classes."
        )
    affine = functools.partial(weights.affine, rngs)
    norm, growth = NORMALIZATIONS[blocks.get("normalization", "none")], blocks.get("growth", 1)
    sizes = arch.spatial_sizes(spec, *image_shape[:2])
    last = len(spec) - 1
    first = next((i for i, layer in enumerate(spec) if isinstance(layer, arch.Conv)), last)
    channels = image_shape[2]
    made: list[Callable[[jax.Array], jax.Array]] = []
    for i, (layer, (rows, columns)) in enumerate(zip(spec, sizes, strict=True)):
        out = num_classes if i == last else width
        match layer:
            case arch.Conv(size, stride):
                made += [norm(channels, rngs)] if norm and i > first else []
                made.append(affine((size, size, channels, out), stride=stride))
                channels = out
            case arch.Dense():
                made.append(affine((channels, out)))
                channels = out
            case arch.Relu():
                made.append(jax.nn.relu)
            case arch.AvgPool(size):
                made.append(functools.partial(layers.avg_pool, size=size))
                width *= growth
            case arch.GlobalAvgPool():
                made.append(layers.global_avg_pool)
            case arch.Flatten():
                made.append(layers.flatten)
                channels *= rows * columns
    return nnx.Sequential(*made)


@dataclass(frozen=True)
class Functions:
    """A network as pure functions of its parameters and its other state (running averages).

    Attributes:
        init: key -> (parameters, other), trees of float32 arrays.
        apply: (parameters, other, images) -> outputs (n, num_classes), in evaluation mode.
        apply_train: the same -> (outputs, other), in training mode: normalised over the batch.
        features: (parameters, other, images) -> (n, F), the flattened input of the last dense
            layer, in evaluation mode.
    """

    init: Callable[[jax.Array], tuple[Tree, Tree]]
    apply: Callable[[Tree, Tree, jax.Array], jax.Array]
    apply_train: Callable[[Tree, Tree, jax.Array], tuple[jax.Array, Tree]]
    features: Callable[[Tree, Tree, jax.Array], jax.Array]

    @property
    def keeps_averages(self) -> bool:
        """Whether there is other state: running averages over batches."""
        return bool(jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0))[1]))


def feature_count(net: Functions, image_shape: tuple[int, ...]) -> int:
    """The number F of features that a network has of an image (H, W, C)."""
    params, other = jax.eval_shape(net.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return int(jax.eval_shape(net.features, params, other, image).shape[1])


def functions(make: Make) -> Functions:
    """The pure functions of the networks that `make` makes, which all have one structure."""
    abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    abstract.eval()
    evaluating = nnx.split(abstract, nnx.Param, ...)[0]
    abstract.train()
    training = nnx.split(abstract, nnx.Param, ...)[0]

    def init(key: jax.Array) -> tuple[Tree, Tree]:
        return tuple(nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)[1:])  # type: ignore[return-value]

    def apply(params: Tree, other: Tree, images: jax.Array) -> jax.Array:
        return nnx.merge(evaluating, params, other)(images)

    def apply_train(params: Tree, other: Tree, images: jax.Array) -> tuple[jax.Array, Tree]:
        module = nnx.merge(training, params, other, copy=True)  # The call changes `other`.
        outputs = module(images)
        return outputs, nnx.state(module, nnx.Not(nnx.Param))

    def features(params: Tree, other: Tree, images: jax.Array) -> jax.Array:
        x = images
        for layer in _before_readout(nnx.merge(evaluating, params, other)):
            x = layer(x)
        return layers.flatten(x)

    return Functions(init, apply, apply_train, features)


def _before_readout(module: nnx.Sequential) -> list[Callable[[jax.Array], jax.Array]]:
    """The layers of a network before its last dense layer."""
    made = list(module.layers)
    dense = [isinstance(layer, layers.Affine) and layer.kernel.ndim == 2 for layer in made]
    return made[: len(made) - 1 - dense[::-1].index(True)]


def num_parameters(make: Make) -> int:
    """The number of trainable parameters of a network that `make` makes."""
    params = nnx.state(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
