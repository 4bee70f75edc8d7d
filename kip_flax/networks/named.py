"""Networks by their names in `transfer.networks`: 'kernel', 'convnet:3', or one of the zoo."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kip_flax import architectures
from kip_flax.runtime.errors import UserError

if TYPE_CHECKING:  # Flax's modules take a second to load.
    from kip_flax.networks.build import Blocks, Make, Weights

KRR = "krr"  # The name of kernel ridge regression among the networks.


@dataclass(frozen=True)
class NetworkOptions:
    """How finite networks are built from descriptions; those of the zoo have settings of their own.

    Attributes:
        architecture, depth: of the description that the name 'kernel' refers to.
        width: channels or units of the first layers.
        weights: how they are drawn.
        blocks: normalisation and growth; None for the defaults of `make_network`.
    """

    architecture: str
    depth: int
    width: int
    weights: Weights
    blocks: Blocks | None = None


def is_kernel(name: str) -> bool:
    """Whether a name in `transfer.networks` is kernel ridge regression: 'krr', 'krr:fc:1' ..."""
    return name.partition(":")[0] == KRR


def spec_of(name: str, architecture: str, depth: int) -> architectures.Spec | None:
    """The description of a network named in `transfer.networks`; None if it has none.

    'kernel' has the kernel's own (`architecture`, `depth`), 'convnet:3' any other. Networks of the
    zoo have none, nor do 'krr' and 'krr:fc:1', which are not networks.

    Raises:
        UserError: there is no such network.
    """
    kind, _, number = name.partition(":")
    if is_kernel(name) and name != KRR:
        _, _, name = name.partition(":")
        kind, _, number = name.partition(":")
        if _is_architecture(kind) and number.isdecimal():
            architectures.build(kind, int(number))
            return None
        raise UserError(
            f"unknown kernel {KRR}:{name}: write {KRR}, or for example {KRR}:convnet:3 with one of "
            f"{', '.join(architectures.ARCHITECTURES)} and its depth."
        )
    if name == "kernel":
        return architectures.build(architecture, depth)
    if _is_architecture(kind) and number.isdecimal():
        return architectures.build(kind, int(number))
    if name == KRR:
        return None
    from kip_flax.networks import zoo

    if name not in zoo.ZOO:
        others = ", ".join(f"{kind}:DEPTH" for kind in architectures.ARCHITECTURES)
        raise UserError(
            f"unknown network {name!r}: take one of kernel, {others}, {', '.join(zoo.ZOO)}; "
            f"transfer.networks also takes {KRR}."
        )
    return None


def check_network(field: str, name: str, architecture: str, depth: int) -> None:
    """Raises UserError, which names the field, unless `name` is that of a network."""
    if is_kernel(name):
        raise UserError(
            f"{field} names {name!r}, which is no network but kernel ridge regression: take for "
            f"example 'convnet_plain:3'."
        )
    try:
        spec_of(name, architecture, depth)
    except UserError as error:
        raise UserError(f"{field}: {error}") from None


def maker(name: str, image_shape: tuple[int, int, int], classes: int, like: NetworkOptions) -> Make:
    """A function that makes the network `name` for images (H, W, C).

    Raises:
        UserError: there is no such network, or the images are too small for it.
    """
    from kip_flax.networks import build, zoo

    spec = spec_of(name, like.architecture, like.depth)
    if spec is None:
        make: Make = functools.partial(zoo.make_network, name, image_shape, classes)
    else:
        made = functools.partial(
            build.make_network, spec, image_shape, classes, **like.blocks or {}
        )
        make = functools.partial(made, width=like.width, weights=like.weights)
    build.num_parameters(make)  # Raises UserError if the images are too small.
    return make


def _is_architecture(kind: str) -> bool:
    return kind in architectures.ARCHITECTURES or "." in kind
