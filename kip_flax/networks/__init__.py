"""Finite networks, from descriptions or as published: their training and tangent kernels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kip_flax.networks.saved import TrainedNetwork


def load(folder: str | os.PathLike[str]) -> TrainedNetwork:
    """The trained network in a folder, see `saved.load`."""
    from kip_flax.networks import saved  # Flax's modules take a second to load.

    return saved.load(folder)
