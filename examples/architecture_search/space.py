"""The finite and infinite networks to search, and the settings for each data set."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ml_collections import ConfigDict

from configs import frepo_digits, frepo_mnist, kip_newton_digits, kip_newton_mnist
from kip_flax import architectures
from kip_flax.kernels import KernelOptions


@dataclass(frozen=True)
class ConvNet:
    """A ConvNet of the space that DC searches (Zhao, Mopuri, Bilen, ICLR 2021).

    Attributes:
        depth: blocks of convolution, normalisation, activation and pooling.
        width: channels of a block.
        activation: one of `ACTIVATIONS`.
        norm: one of `NORMS`.
        pool: one of `POOLS`, 2x2.
    """

    depth: int
    width: int
    activation: str = "relu"
    norm: str = "instance"
    pool: str = "avg"


ACTIVATIONS = ("relu", "sigmoid")
NORMS = ("none", "instance")
POOLS = ("avg", "max")


@dataclass(frozen=True)
class Infinite:
    """An infinitely wide network.

    Attributes:
        architecture, depth: as in `architectures.build`.
        get: 'ntk' (all layers are trained) or 'nngp' (the last one is).
        b_std: deviation of the biases.
    """

    architecture: str
    depth: int
    get: str
    b_std: float

    @property
    def options(self) -> KernelOptions:
        """The options of its kernel."""
        spec = architectures.build(self.architecture, self.depth)
        return KernelOptions(spec, get=self.get, b_std=self.b_std)


def name(design: ConvNet | Infinite) -> str:
    """'3 x 16, relu, instance norm, avg pool' or 'convnet:3 ntk 0.1'."""
    if isinstance(design, Infinite):
        return f"{design.architecture}:{design.depth} {design.get} {design.b_std:g}"
    size = f"{design.depth} x {design.width}"
    return f"{size}, {design.activation}, {design.norm} norm, {design.pool} pool"


def finite_grid(depths: tuple[int, ...], widths: tuple[int, ...]) -> tuple[ConvNet, ...]:
    """ConvNets of every combination; those of one depth and width are one compiled program."""
    every = itertools.product(depths, widths, ACTIVATIONS, NORMS, POOLS)
    return tuple(ConvNet(*one) for one in every)


def infinite_grid(get: str, b_stds: tuple[float, ...]) -> tuple[Infinite, ...]:
    """Kernels of all families that fit images of eight pixels a side."""
    kinds = [(kind, depth) for kind in ("fc", "conv") for depth in (1, 2, 3, 4)]
    kinds += [(kind, depth) for kind in ("convnet", "convnet_plain") for depth in (1, 2, 3)]
    kinds += [("myrtle", 5)]
    return tuple(Infinite(*kind, get, b_std) for kind in kinds for b_std in b_stds)


def groups(designs: Sequence[ConvNet | Infinite]) -> dict[str, tuple[str, ...]]:
    """Names of kernels that are alike: the ConvNets, and those with biases of one deviation.

    A set fits the kernel that it is made for and its relatives. A group has three kernels at least,
    and not all there are. Finite networks have no groups.
    """
    kernels = [one for one in designs if isinstance(one, Infinite)]
    found = {"ConvNets": [one for one in kernels if one.architecture.startswith("convnet")]}
    for one in kernels:
        found.setdefault(f"biases {one.b_std:g}", []).append(one)
    return {
        title: tuple(map(name, alike))
        for title, alike in found.items()
        if 3 <= len(alike) < len(kernels)
    }


@dataclass(frozen=True)
class Distillation:
    """How a set is made if none is given: a configuration, and changed fields by dotted name."""

    get_config: Callable[[], ConfigDict]
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Search:
    """The settings of a search.

    Attributes:
        dataset: its name.
        grids: the networks by kind: 'finite', 'ntk', 'nngp'.
        sets: how the distilled set for each kind is made.
        held_out: share of the training images that no network is trained on.
        chosen_on: held-out images that the best network is chosen on; 0: all.
        whole: training images of the whole; 0: all that are not held out.
        real: images of the whole that the kernels regress on; 0: all.
        tested: test images of the kernels; 0: all. Finite networks are tested on all.
        seeds: finite networks per design.
        steps: training steps on the whole, with `batch` images each; smaller sets take the number
            of the recipe.
        rate: learning rate of Adam.
    """

    dataset: str
    grids: Mapping[str, Sequence[ConvNet | Infinite]]
    sets: Mapping[str, Distillation]
    held_out: float
    chosen_on: int
    whole: int
    real: int
    tested: int
    seeds: int
    steps: int
    batch: int
    rate: float


DIGITS = Search(
    dataset="digits",
    grids={
        "finite": finite_grid((1, 2, 3), (4, 16)),
        "ntk": infinite_grid("ntk", (0.1, 1.0)),
        "nngp": infinite_grid("nngp", (0.1, 1.0)),
    },
    sets={
        "finite": Distillation(frepo_digits.get_config),
        "ntk": Distillation(kip_newton_digits.get_config),
        "nngp": Distillation(kip_newton_digits.get_config, {"kernel.kind": "nngp"}),
    },
    held_out=0.2,
    chosen_on=0,
    whole=0,
    real=0,
    tested=0,
    seeds=2,
    steps=1000,
    batch=100,
    rate=5e-3,
)
MNIST = Search(
    dataset="mnist",
    grids={
        "finite": finite_grid((1, 2, 3), (4, 16)),
        "ntk": infinite_grid("ntk", (0.1,)),
        "nngp": infinite_grid("nngp", (0.1,)),
    },
    sets={
        "finite": Distillation(frepo_mnist.get_config),
        "ntk": Distillation(kip_newton_mnist.get_config),
        "nngp": Distillation(kip_newton_mnist.get_config, {"kernel.kind": "nngp"}),
    },
    held_out=0.1,
    chosen_on=2000,
    whole=10_000,
    real=1000,
    tested=1000,
    seeds=2,
    steps=500,
    batch=50,
    rate=5e-3,
)
SEARCHES = {search.dataset: search for search in (DIGITS, MNIST)}
# In about a minute: six networks and eight kernels, sets of a few steps.
SMALL = replace(
    DIGITS,
    grids={
        "finite": finite_grid((1,), (8,))[:6],
        "ntk": infinite_grid("ntk", (0.1,))[::4],
        "nngp": infinite_grid("nngp", (0.1,))[::4],
    },
    sets={
        "finite": Distillation(frepo_digits.get_config, {"num_steps": 100}),
        "ntk": Distillation(kip_newton_digits.get_config, {"num_steps": 5}),
        "nngp": Distillation(kip_newton_digits.get_config, {"num_steps": 5, "kernel.kind": "nngp"}),
    },
    real=200,
    steps=100,
)
