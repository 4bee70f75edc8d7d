"""Networks by their names in `transfer.networks`: 'kernel', 'convnet:3', or one of the zoo."""

import functools
from dataclasses import dataclass, field

from kip_flax.networks import build, zoo
from kip_flax.networks.build import Blocks, Make, Weights
from kip_flax.networks.recipe import spec_of


@dataclass(frozen=True)
class Described:
    """What makes a finite network of a description; those of the zoo have all of it already.

    Attributes:
        architecture, depth: of the description that 'kernel' stands for.
        width: channels or units of the first layers.
        weights: how they are drawn.
        blocks: normalisation and growth.
    """

    architecture: str
    depth: int
    width: int
    weights: Weights
    blocks: Blocks = field(default_factory=Blocks)


def maker(name: str, image_shape: tuple[int, int, int], classes: int, like: Described) -> Make:
    """What makes the network `name` for images (H, W, C).

    Raises:
        UserError: there is no such network, or the images are too small for it.
    """
    spec = spec_of(name, like.architecture, like.depth)
    if spec is None:
        make: Make = functools.partial(zoo.make_network, name, image_shape, classes)
    else:
        made = functools.partial(build.make_network, spec, image_shape, classes, **like.blocks)
        make = functools.partial(made, width=like.width, weights=like.weights)
    build.num_parameters(make)  # Refuses what does not fit.
    return make
