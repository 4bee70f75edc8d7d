"""ConvNets of one depth and width as one program; other choices are made when it runs.

Compiling a small network takes longer than training it on a few images. So networks that differ
only in activation, normalisation and pooling are compiled once.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples.architecture_search.space import ACTIVATIONS, NORMS, POOLS, ConvNet
from kip_flax.networks import layers, zoo
from kip_flax.networks.build import Tree

Layer = Callable[[jax.Array], jax.Array]
_ACTIVATIONS: dict[str, Layer] = {"relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
_POOLS: dict[str, Layer] = {"avg": layers.avg_pool, "max": layers.max_pool}


class Choice(nnx.Variable):
    """Indices (3,) in `ACTIVATIONS`, `NORMS` and `POOLS`; float32, as averages of weights are."""


class ConvNets(nnx.Sequential):
    """The ConvNet of the zoo, with activation, normalisation and pooling selected by `choice`."""

    def __init__(self, shape: zoo.Shape, classes: int, rngs: nnx.Rngs, *, depth: int, width: int):
        super().__init__(*zoo.convnet(shape, classes, rngs, width, depth).layers)
        self.choice = Choice(jnp.zeros(3, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]  # Takes only images.
        *blocks, flatten, readout = self.layers
        activation, norm, pool = jnp.round(self.choice[...]).astype(jnp.int32)
        for convolution, normalise in zip(blocks[::4], blocks[1::4], strict=True):
            norms: dict[str, Layer] = {"none": lambda x: x, "instance": normalise}
            x = convolution(x)
            x = jax.lax.switch(norm, [norms[name] for name in NORMS], x)
            x = jax.lax.switch(activation, [_ACTIVATIONS[name] for name in ACTIVATIONS], x)
            x = jax.lax.switch(pool, [_POOLS[name] for name in POOLS], x)
        return readout(flatten(x))


def choose(other: Tree, design: ConvNet) -> Tree:
    """The state of R `ConvNets` besides their parameters, (R, 3), set to those of `design`."""
    places = (
        ACTIVATIONS.index(design.activation),
        NORMS.index(design.norm),
        POOLS.index(design.pool),
    )
    return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) + np.array(places, np.float32), other)
